"""The readers and marks that a request's tools and the server's parsers lead to."""

from typing import Any

import pytest

from outrider.engine.tokenizer import Tokenizer
from outrider.server.answer_events import CallBegin, Reasoning, Text
from outrider.server.reader import NO_PROMPT
from outrider.server.tools import ChosenTool, Tool, ToolUse
from tests.server.test_token_details import TOKENIZER

TOOLS = [Tool.model_validate({"type": "function", "function": {"name": "add"}})]
CHOSEN = ChosenTool.model_validate({"type": "function", "function": {"name": "add"}})


def use(choice: Any = None, tools: Any = TOOLS, **names: str | None) -> ToolUse:
    parsers: dict[str, Any] = {"parser_name": "mistral", "reasoning_parser_name": "qwen3", **names}
    return ToolUse(tools, choice, is_parallel=True, template="{{ tools }}", **parsers)


def test_marks_are_those_of_the_parsers_that_read() -> None:
    assert use().marks > {"[TOOL_CALLS]", "</think>"}
    assert use("none").marks == use(tools=None).marks == {"<think>", "</think>"}
    assert use("required").marks == use(CHOSEN).marks == use("none", reasoning_parser_name=None).marks == set()


def test_special_tokens_are_known_by_their_text() -> None:
    tokenizer: Tokenizer = TOKENIZER
    assert tokenizer.has_special_token("<|im_end|>")
    assert not tokenizer.has_special_token("<tool_call>") and not tokenizer.has_special_token("a")


@pytest.mark.parametrize(("parser", "length"), [("mistral", 9), ("hermes", 29), (None, 9)])
@pytest.mark.parametrize("choice", ["required", CHOSEN])
def test_forced_calls_have_ids_in_the_parsers_form(parser: str | None, length: int, choice: Any) -> None:
    reader = use(choice, parser_name=parser).reader(NO_PROMPT)
    text = '[{"name":"add","parameters":{"a":1}}]' if choice == "required" else '{"a":1}'
    (begin, *_) = reader.feed(text) + reader.finish()
    assert isinstance(begin, CallBegin) and len(begin.id) == length
    assert reader.finish_reason("stop") == "tool_calls" and reader.finish_reason("length") == "length"


def test_a_format_that_holds_reasoning_is_read_once() -> None:
    text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>a <|channel|> b<|end|>"
    for reasoning in ("openai", None):
        reader = use(parser_name="openai", reasoning_parser_name=reasoning).reader(NO_PROMPT)
        assert reader.feed(text) + reader.finish() == [Reasoning("Hm."), Text("a <|channel|> b")]


def test_a_list_of_forced_calls_that_is_cut_has_a_cut_call() -> None:
    reader = use("required").reader(NO_PROMPT)
    found = reader.read_whole('[{"name":"add","parameters":{"a":1}}, {"name":"add","parameters":{"a":"x', "length")
    assert [call.arguments for call in found.calls] == ['{"a":1}', '{"a":"x'] and not found.content
