"""One suite for every parser of reasoning: it is separated from content and calls, whole and streamed."""

import sys
from typing import Any

import pytest

from outrider import ConfigError
from outrider.core import plugins
from outrider.server import reasoning_parsers
from outrider.server.answer_events import Event, Reasoning, Text, joined
from outrider.server.answer_reader import AnswerReader, WholeAnswer
from outrider.server.options import ServerOptions
from outrider.server.reader import PromptEnd
from outrider.server.tools import find_parser, find_reasoning_parser
from tests.server.tool_formats import FORMATS, TOOLS

NAMES = plugins.names(reasoning_parsers)
HARMONY = ["<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}"]
THINK = ["<think>\n{}\n</think>\n\n{}", "<think>{}</think>{}", "\n<think>\n{}</think>\n{}"]
FORMS = {
    "openai": HARMONY,
    "openai_gptoss": HARMONY,
    "qwen3": THINK,
    "glm45": THINK,
    "deepseek_v3": THINK,
    "deepseek_r1": [*THINK, "{}</think>{}", "\n{}\n</think>\n\n{}"],
}
"""Reasoning and answer as models write them, by parser."""
every_parser = pytest.mark.parametrize("name", NAMES)
SAID = [("Hm. ", "Yes."), ("a < b <thin k\n\nü🎉", "x\n\ny <|"), ("Hm.", "")]
PROMPT = PromptEnd(text="<|im_start|>assistant\n")
OPEN = PromptEnd(text="<|im_start|>assistant\n<think>\n")
CLOSED = PromptEnd(text="<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_every_parser_has_a_form() -> None:
    assert sorted(FORMS) == NAMES


def read(name: str, text: str, cuts: list[int] | None = None, prompt: PromptEnd = PROMPT) -> list[Event]:
    reader = AnswerReader(reasoning=find_reasoning_parser(name)({}, prompt))
    events: list[Event] = []
    for begin, end in zip([0, *(cuts or [])], [*(cuts or []), len(text)], strict=True):
        events += reader.feed(text[begin:end])
    return joined(events + reader.finish())


def whole(name: str, text: str, prompt: PromptEnd = PROMPT) -> tuple[str, str]:
    """Reasoning and content."""
    found = AnswerReader(reasoning=find_reasoning_parser(name)({}, prompt)).read_whole(text, "stop")
    return found.reasoning, found.content


@every_parser
def test_reasoning_and_content_are_separated_wherever_the_text_is_cut(name: str) -> None:
    for form in FORMS[name]:
        for reasoning, content in SAID:
            text = form.format(reasoning, content)
            expected = [event for event in (Reasoning(reasoning), Text(content)) if event.text]
            assert read(name, text) == read(name, text, list(range(1, len(text)))) == expected, text
            for cut in range(1, len(text), 3):
                assert read(name, text, [cut]) == expected, (text, cut)


@every_parser
def test_reasoning_is_streamed_as_it_comes(name: str) -> None:
    text = FORMS[name][0].format("word " * 50, "word " * 50)
    reader = AnswerReader(reasoning=find_reasoning_parser(name)({}, PROMPT))
    events = [event for character in text for event in reader.feed(character)]
    assert len(events) > 480 and all(len(event.text) < 40 for event in events if isinstance(event, (Text, Reasoning)))


@every_parser
def test_an_answer_that_is_cut_keeps_its_text(name: str) -> None:
    text = FORMS[name][0].format("Hm.", "Yes.")
    for end in range(len(text)):
        reasoning, content = whole(name, text[:end])
        assert "Hm.".startswith(reasoning) or text[:end].endswith(reasoning)
        assert reasoning or content or text[:end].strip() in text[: text.index("Hm.")]


@pytest.mark.parametrize("name", [name for name in NAMES if FORMS[name] != HARMONY])
def test_the_prompt_may_open_or_close_the_reasoning(name: str) -> None:
    assert whole(name, "Hm.\n</think>\n\nYes.", OPEN) == ("Hm.", "Yes.")
    assert whole(name, "Hm", OPEN) == ("Hm", "")
    assert whole(name, "Yes. </think>", CLOSED) == ("", "Yes. </think>")
    continued = PromptEnd(text="<think>\nHm", is_continued=True)
    assert whole(name, " hm</think>Yes", continued) == (" hm", "Yes")
    continued = PromptEnd(text="<think>\nHm\n</think>\n\nYes", is_continued=True)
    assert whole(name, ", yes", continued) == ("", ", yes")


def test_models_differ_where_the_prompt_says_nothing() -> None:
    assert whole("qwen3", "Yes.") == ("", "Yes.") and whole("deepseek_r1", "Hm.") == ("Hm.", "")


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1"])
@pytest.mark.parametrize("prompt", [OPEN, PROMPT])
def test_a_grammar_may_force_the_answer_at_once(name: str, prompt: PromptEnd) -> None:
    json = PromptEnd(text=prompt.text, is_json=True)
    assert whole(name, '{"a": "</think>"}', json) == ("", '{"a": "</think>"}')
    other = PromptEnd(text=prompt.text, is_constrained=True)
    assert whole(name, "\nyes", other) == ("", "\nyes")
    assert whole(name, "<think>Hm.\n</think>\nyes", other) == ("Hm.", "yes")
    if name == "deepseek_r1" or prompt is OPEN:
        text = "\nHm.\n</think>\n\nyes"
        assert read(name, text, prompt=other) == read(name, text, list(range(1, len(text))), other)
        assert whole(name, text, other) == ("Hm.", "yes")


@pytest.mark.parametrize("tool_parser", sorted(FORMATS))
@every_parser
def test_calls_follow_reasoning(name: str, tool_parser: str) -> None:
    call = FORMATS[tool_parser][0].call("add", [("text", '"<think>x</think>"')])
    form = FORMS[name][0]
    if (tool_parser == "openai") != (form in HARMONY):
        return  # no model writes both
    text = f"<|channel|>analysis<|message|>Hm.<|end|>{call}" if tool_parser == "openai" else form.format("Hm.", call)
    tools = find_parser(tool_parser)(TOOLS, PROMPT)
    reasoning = None if tools.reads_reasoning else find_reasoning_parser(name)({}, PROMPT)
    found = AnswerReader(reasoning=reasoning, tools=tools).read_whole(text, "stop")
    assert (found.reasoning, found.content) == ("Hm.", "")
    assert [(made.name, made.arguments) for made in found.calls] == [("add", '{"text": "<think>x</think>"}')]


@every_parser
def test_reasoning_can_be_left_out(name: str) -> None:
    reader = AnswerReader(reasoning=find_reasoning_parser(name)({}, PROMPT), includes_reasoning=False)
    assert reader.read_whole(FORMS[name][0].format("Hm.", "Yes."), "stop") == WholeAnswer(content="Yes.")


@every_parser
def test_reading_is_linear(name: str) -> None:
    def cost(length: int) -> int:
        text = FORMS[name][0].format("a\n\n<|" * length, "b\n\n</" * length)
        reader, num_calls = find_reasoning_parser(name)({}, PROMPT), 0

        def count(_frame: Any, kind: str, _value: Any) -> None:
            nonlocal num_calls
            num_calls += kind in ("call", "c_call")

        for begin in range(0, len(text), 4):
            sys.setprofile(count)
            reader.feed(text[begin : begin + 4])
            sys.setprofile(None)
            assert len(reader.source._text) <= 32
        return num_calls

    assert cost(800) < 4.4 * cost(200)


def test_an_unknown_parser_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"reasoning_parser 'nothing' is not known\. Known: deepseek_r1, .*qwen3"):
        ServerOptions(reasoning_parser="nothing")
