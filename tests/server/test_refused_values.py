"""A value that has one of a field's types and is beyond a limit: the message names the limit, not the other types."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from outrider.server.body import parsed
from outrider.server.chat import ChatRequest
from outrider.server.completions import MAX_PROMPTS, CompletionRequest
from outrider.server.errors import APIError

MESSAGE = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("model", "body", "said", "unsaid"),
    [
        (CompletionRequest, {"prompt": ["a"] * (MAX_PROMPTS + 1)}, "at most 256 items", "integer"),
        (CompletionRequest, {"prompt": [[1]] * (MAX_PROMPTS + 1)}, "at most 256 items", "string"),
        (CompletionRequest, {"prompt": [[1], []]}, "prompt[1]=[]", "prompt[0]"),
        (CompletionRequest, {"prompt": [1, -1]}, "prompt[1]=-1", "string"),
        (CompletionRequest, {"prompt": ""}, "at least 1 character", "array"),
        (CompletionRequest, {"prompt": "a", "stop": ["b", ""]}, 'stop[1]=""', "string."),
        (ChatRequest, {"messages": [MESSAGE | {"content": []}]}, "at least 1 item", "string"),
        # a value of none of the types is refused for all of them
        (CompletionRequest, {"prompt": 3}, "valid string", "items"),
        (CompletionRequest, {"prompt": 3}, "valid array", "items"),
        # what is wrong with another field is named, too
        (CompletionRequest, {"prompt": [], "top_p": "x"}, "top_p", "string"),
    ],
)
def test_the_limit_is_named(model: type[BaseModel], body: dict[str, Any], said: str, unsaid: str) -> None:
    with pytest.raises(APIError) as refusal:
        parsed(json.dumps(body).encode(), model)
    message = str(refusal.value)
    assert said in message and unsaid not in message
