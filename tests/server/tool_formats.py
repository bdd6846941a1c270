"""Writes calls in the format of each parser, as a model would: the texts of the conformance suite.

A parser is listed under its file name. Nothing here knows how parsers read.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

TOOLS: dict[str, dict[str, Any]] = {
    "add": {
        "type": "object",
        "properties": {
            "a": {"type": ["number", "boolean", "null"]},
            "text": {"type": "string"},
            "list": {"type": "array"},
            "object": {"anyOf": [{"$ref": "#/$defs/O"}, {"type": "null"}]},
        },
        "$defs": {"O": {"type": "object"}},
    },
    "now": {},
}
Members = Sequence[tuple[str, str]]
"""Key and JSON text of each argument."""


def object_of(members: Members) -> str:
    """JSON text of an object."""
    return "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in members) + "}"


class Format(ABC):
    """One format."""

    keeps_text = True
    """True if arguments are JSON and so the model's own text."""
    begins_answer = False
    """True if only an answer that begins with a call has calls."""
    marks: Sequence[str] = ()

    @abstractmethod
    def call(self, name: str, members: Members) -> str:
        """Text of one call."""

    def calls(self, *calls: str) -> str:
        """Text of several calls."""
        return "\n".join(calls)


class Hermes(Format):
    marks = ("<tool_call>", "</tool_call>")

    def call(self, name: str, members: Members) -> str:
        return f'<tool_call>\n{{"name": "{name}", "arguments": {object_of(members)}}}\n</tool_call>'


class Llama(Format):
    begins_answer = True
    marks = ("<|python_tag|>", ";")

    def call(self, name: str, members: Members) -> str:
        return f'{{"name": "{name}", "parameters": {object_of(members)}}}'

    def calls(self, *calls: str) -> str:
        return "; ".join(calls)


class MistralList(Format):
    marks = ("[TOOL_CALLS]",)

    def call(self, name: str, members: Members) -> str:
        return f'[TOOL_CALLS][{{"name": "{name}", "arguments": {object_of(members)}}}]'

    def calls(self, *calls: str) -> str:
        return "[TOOL_CALLS][" + ", ".join(call.removeprefix("[TOOL_CALLS][").removesuffix("]") for call in calls) + "]"


class MistralNamed(Format):
    marks = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")

    def call(self, name: str, members: Members) -> str:
        return f"[TOOL_CALLS]{name}[ARGS]{object_of(members)}"

    def calls(self, *calls: str) -> str:
        return "".join(calls)


class DeepseekV3(Format):
    marks = ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "```", "<｜tool▁call▁end｜>")

    def call(self, name: str, members: Members) -> str:
        return self._around(f"function<｜tool▁sep｜>{name}\n```json\n{object_of(members)}\n```")

    def calls(self, *calls: str) -> str:
        begin, end = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
        return begin + "\n".join(call.removeprefix(begin).removesuffix(end) for call in calls) + end

    def _around(self, text: str) -> str:
        return f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{text}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"


class DeepseekV31(DeepseekV3):
    def call(self, name: str, members: Members) -> str:
        return self._around(f"{name}<｜tool▁sep｜>{object_of(members)}")


class Qwen3Xml(Format):
    keeps_text = False
    marks = ("<tool_call>", "<function=", "<parameter=a>", "</parameter>", "</tool_call>")

    def call(self, name: str, members: Members) -> str:
        texts = "".join(f"<parameter={key}>\n{shown(value)}\n</parameter>\n" for key, value in members)
        return f"<tool_call>\n<function={name}>\n{texts}</function>\n</tool_call>"


class Glm45(Format):
    keeps_text = False
    marks = ("<tool_call>", "<arg_key>", "</arg_value>", "</tool_call>")

    def call(self, name: str, members: Members) -> str:
        texts = [f"<arg_key>{key}</arg_key>\n<arg_value>{shown(value)}</arg_value>\n" for key, value in members]
        return f"<tool_call>{name}\n{''.join(texts)}</tool_call>"


class Pythonic(Format):
    keeps_text = False
    begins_answer = True
    marks = ("[", "]", "(", ")", "=", ",")

    def call(self, name: str, members: Members) -> str:
        return f"[{name}({', '.join(f'{key}={in_python(value)}' for key, value in members)})]"

    def calls(self, *calls: str) -> str:
        return "[" + ", ".join(call[1:-1] for call in calls) + "]"


class Harmony(Format):
    marks = ("<|start|>", "<|message|>", "<|call|>", "<|channel|>")

    def call(self, name: str, members: Members) -> str:
        header = f"<|start|>assistant<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
        return f"{header}{object_of(members)}<|call|>"

    def calls(self, *calls: str) -> str:
        return "".join(calls)


def shown(value: str) -> str:
    """A value between tags: a string is its own text, anything else is JSON."""
    return str(json.loads(value)) if value.startswith('"') else value


def in_python(value: str) -> str:
    """A value as Python writes it."""
    if value.startswith('"'):
        return repr(json.loads(value))
    return {"true": "True", "false": "False", "null": "None"}.get(value, value)


FORMATS: dict[str, list[Format]] = {
    "hermes": [Hermes()],
    "llama3_json": [Llama()],
    "mistral": [MistralList(), MistralNamed()],
    "deepseek_v3": [DeepseekV3()],
    "deepseek_v31": [DeepseekV31()],
    "qwen3_xml": [Qwen3Xml()],
    "qwen3_coder": [Qwen3Xml()],
    "glm45": [Glm45()],
    "pythonic": [Pythonic()],
    "openai": [Harmony()],
}
