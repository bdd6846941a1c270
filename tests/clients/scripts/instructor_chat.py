"""instructor: models filled by a tool call, by a JSON schema and by JSON mode, whole and as partial streams."""

from typing import Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel
from talk import read_task, tell

task = read_task()


class Answer(BaseModel):
    """The schema of the task as a class."""

    colour: Literal["red", "green"]
    likes_code: bool


asked = {
    "model": task.model,
    "messages": [{"role": "user", "content": task.question}],
    "temperature": 0,
    "max_tokens": 200,
    "response_model": Answer,
    "max_retries": 0,
}
found = {}
with OpenAI(base_url=task.url, api_key="none", max_retries=0) as plain:
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        client = instructor.from_openai(plain, mode=mode)
        whole = client.chat.completions.create(**asked)
        *_, last = client.chat.completions.create_partial(**asked)
        found[mode.name] = [whole.model_dump_json(), last.model_dump_json()]
tell(shaped_by_mode=found)
