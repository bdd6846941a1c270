"""One suite for every parser of tool calls: whatever a model writes becomes calls or text, and nothing is lost."""

import json
import random
import re
import sys
from typing import Any

import pytest

from outrider import ConfigError
from outrider.core import plugins
from outrider.server import json_text, tool_parsers
from outrider.server.answer_events import Arguments, CallBegin, CallBroken, CallEnd, Event, Text, joined
from outrider.server.answer_reader import AnswerReader, Call, WholeAnswer
from outrider.server.options import ServerOptions
from outrider.server.reader import Reader
from outrider.server.tools import find_parser
from tests.server.tool_formats import FORMATS, TOOLS, Format, object_of

NAMES = plugins.names(tool_parsers)
ALL = [(name, format_) for name in NAMES for format_ in FORMATS.get(name, [])]
every_format = pytest.mark.parametrize(
    ("name", "format_"), ALL, ids=[f"{name}-{type(format_).__name__}" for name, format_ in ALL]
)
MEMBERS = [("a", "1.10"), ("text", '"\\"ü🎉 </x>\\\\"'), ("list", '[[], {"b": null}]')]
DEEP = "[" * 2000 + "]" * 2000


def test_every_parser_has_a_format() -> None:
    assert sorted(FORMATS) == NAMES


def reader(name: str) -> Reader:
    return find_parser(name)(TOOLS)


def read(name: str, text: str, cuts: list[int] | None = None) -> list[Event]:
    """Events of a text that comes in pieces, with ids that do not differ."""
    parser = reader(name)
    parser.source._new_id = lambda: "id"
    events: list[Event] = []
    for begin, end in zip([0, *(cuts or [])], [*(cuts or []), len(text)], strict=True):
        events += parser.feed(text[begin:end])
    return joined(events + parser.finish())


def whole(name: str, text: str, finish_reason: str = "stop") -> WholeAnswer:
    return AnswerReader(tools=reader(name)).read_whole(text, finish_reason)


def the_call(name: str, text: str) -> Call:
    found = whole(name, text)
    assert not found.content.strip() and len(found.calls) == 1, found
    return found.calls[0]


def texts_of(format_: Format) -> list[str]:
    """Calls, text and broken calls."""
    call = format_.call("add", MEMBERS)
    return [
        ("" if format_.begins_answer else "I < [see {. ") + call + "\n\nDone.",
        format_.calls(call, format_.call("now", []), call),
        format_.call("unknown", MEMBERS),
        format_.call("add", [("a", "NaN"), ("text", '"x"')]) + call,
        format_.call("add", [("text", '"x"'), ("a", "1e999"), ("a", "tru")]),
        call[: len(call) * 2 // 3],
        f"No {format_.marks[0]} {format_.marks[-1]} call",
    ]


@every_format
def test_a_stream_reads_as_the_whole_wherever_it_is_cut(name: str, format_: Format) -> None:
    for text in texts_of(format_):
        expected = read(name, text)
        assert read(name, text, list(range(1, len(text)))) == expected, text
        for cut in range(1, len(text), 17):
            assert read(name, text, [cut]) == expected, (text, cut)


@pytest.mark.slow
@every_format
def test_a_stream_reads_as_the_whole_with_any_one_cut(name: str, format_: Format) -> None:
    for text in texts_of(format_):
        expected = read(name, text)
        for cut in range(1, len(text)):
            assert read(name, text, [cut]) == expected, (text, cut)


@every_format
def test_arguments_are_the_models_own(name: str, format_: Format) -> None:
    call = the_call(name, format_.call("add", MEMBERS))
    assert call.name == "add"
    assert json.loads(call.arguments) == json.loads(object_of(MEMBERS))
    if format_.keeps_text:
        assert call.arguments == object_of(MEMBERS)


@every_format
@pytest.mark.parametrize(
    "number", ["1e999", "-0", "1.10", "1E2", "12345678901234567890.5", "0.1e-7", "9" * 5000, "-" + "1" * 5000 + ".0"]
)
def test_numbers_are_not_changed(name: str, format_: Format, number: str) -> None:
    call = the_call(name, format_.call("add", [("a", number)]))
    assert call.arguments == '{"a": ' + number + "}"


@every_format
def test_deep_arguments_are_calls(name: str, format_: Format) -> None:
    call = the_call(name, format_.call("add", [("list", DEEP), ("text", '"x"')]))
    assert re.sub(r"\s", "", call.arguments) == '{"list":' + DEEP + ',"text":"x"}'


NOT_JSON = ["NaN", "-Infinity", "Infinity", "01", "+1", ".5", "1.", "1e", "tru", "'x'", '"a\nb"', '"\\x41"', '"\\ud8"',
            "[1,]", "{a: 1}", "1 /* one */", "undefined", '"\x00"', "[1 2]"]  # fmt: skip


@every_format
@pytest.mark.parametrize("value", NOT_JSON)
def test_what_is_not_json_stays_text(name: str, format_: Format, value: str) -> None:
    if not format_.keeps_text:
        return
    for members in ([("a", value)], [("text", '"x"'), ("a", value)], [("list", f"[[{value}]]")]):
        text = format_.call("add", members)
        assert whole(name, text) == WholeAnswer(content=text)
        if members[0][1] != '"x"' and not value.startswith(('"', "[1,")):
            assert read(name, text, list(range(1, len(text)))) == [Text(text)]  # a stream, too, has text only


@every_format
def test_a_string_may_quote_every_mark(name: str, format_: Format) -> None:
    quoted = "|".join(format_.marks) + format_.marks[-1] + "\n" + format_.marks[0] + ' x"y\\'
    call = the_call(name, format_.call("add", [("text", json.dumps(quoted)), ("a", "1")]))
    assert json.loads(call.arguments) == {"text": quoted, "a": 1}


@every_format
def test_half_of_a_surrogate_pair_is_kept_as_an_escape(name: str, format_: Format) -> None:
    if format_.keeps_text:
        call = the_call(name, format_.call("add", [("text", '"\\ud83d"')]))
        assert call.arguments == '{"text": "\\ud83d"}'
    half = format_.call("add", [("text", json.dumps("\ud83d", ensure_ascii=False))])
    for call in whole(name, half).calls:
        assert json.loads(call.arguments) == {"text": "\ud83d"}
    for text in (half, format_.call("\ud83d", []), format_.call("add", [("\ud83d", "1")])):
        assert read(name, text, list(range(1, len(text)))) == read(name, text)


@every_format
@pytest.mark.parametrize(
    "text", ["ü🎉日本\u2028\u0301", "\x7f\ufeff\uffff", "\\", "\t", "a\nb\n", "", " ", "</", "null", "5"]
)
def test_strings_come_through(name: str, format_: Format, text: str) -> None:
    call = the_call(name, format_.call("add", [("text", json.dumps(text))]))
    assert json.loads(call.arguments) == {"text": text}


@every_format
def test_two_calls_have_two_ids(name: str, format_: Format) -> None:
    calls = whole(name, format_.calls(format_.call("add", MEMBERS), format_.call("now", []))).calls
    assert [call.name for call in calls] == ["add", "now"] and calls[1].arguments == "{}"
    assert len({call.id for call in calls}) == 2


@every_format
def test_prose_before_and_after_is_content(name: str, format_: Format) -> None:
    call = format_.call("add", MEMBERS)
    before = "" if format_.begins_answer else "Let me [see] <b>{x}</b>. "
    found = whole(name, f"{before}{call}Done {{}}.")
    assert found.content == f"{before}Done {{}}." and len(found.calls) == 1
    if format_.begins_answer:
        assert whole(name, f"I say {call}") == WholeAnswer(content=f"I say {call}")


@every_format
def test_functions_that_are_not_offered_are_text(name: str, format_: Format) -> None:
    for wrong in ("Harbour", "", "Add", "add ", "add.x", "a" * 500):
        text = format_.call(wrong, [("depth", "12"), ("text", '"now"')])
        if (name, wrong) not in {("deepseek_v3", "add "), ("glm45", "add "), ("openai", "add ")}:
            assert read(name, text, list(range(1, len(text)))) == [Text(text)]
        assert whole(name, text + "x").content.endswith("x")


@every_format
def test_a_key_that_comes_twice_is_passed_through(name: str, format_: Format) -> None:
    assert the_call(name, format_.call("add", [("a", "1"), ("a", "2")])).arguments == '{"a": 1, "a": 2}'


@every_format
def test_an_answer_may_be_cut_anywhere(name: str, format_: Format) -> None:
    text = format_.call("add", MEMBERS)
    arguments = the_call(name, text).arguments
    for end in range(len(text)):
        stopped, cut = whole(name, text[:end]), whole(name, text[:end], "length")
        assert stopped == WholeAnswer(content=text[:end]) or (
            [call.arguments for call in stopped.calls] == [arguments] and text[:end].endswith(stopped.content)
        )
        for call in cut.calls:
            assert arguments.startswith(call.arguments) and text[:end].endswith(cut.content)
        assert cut.calls or cut.content == text[:end]


@every_format
def test_a_stream_gives_the_name_first_and_arguments_as_they_come(name: str, format_: Format) -> None:
    text = format_.call("add", [("text", json.dumps("long " * 40)), ("list", "[" + "1, " * 40 + "1]")])
    parser, pieces, seen = reader(name), [], 0
    for character in text:
        events = parser.feed(character)
        if not pieces and events:
            assert isinstance(events[0], CallBegin) and events[0].id
        for event in events:
            if isinstance(event, Arguments):
                pieces.append(event.text)
        seen += bool(events)
    assert isinstance(parser.finish()[-1:] or [CallEnd()], list)
    assert "".join(pieces) == the_call(name, text).arguments
    assert len(pieces) > 200 and max(map(len, pieces)) < 200


def cost(name: str, text: str) -> tuple[int, int]:
    """Calls of functions while a text is read in pieces of 4 characters, and the most characters held at once."""
    parser, num_calls, num_held = reader(name), 0, 0

    def count(_frame: Any, kind: str, _value: Any) -> None:
        nonlocal num_calls
        num_calls += kind in ("call", "c_call")

    for begin in range(0, len(text), 4):
        sys.setprofile(count)
        parser.feed(text[begin : begin + 4])
        sys.setprofile(None)
        num_held = max(num_held, len(parser.source._text))
    parser.finish()
    return num_calls, num_held


@every_format
@pytest.mark.parametrize(
    "value", [json.dumps("word \\n" * 100), "[" * 400 + "]" * 400, "[" + "1.5, " * 160 + "1]", "5" * 800]
)
def test_reading_is_linear(name: str, format_: Format, value: str) -> None:
    key = "text" if value.startswith('"') else "list"
    one, four = ([("text", '"x"'), *[(key, value)] * times] for times in (1, 4))
    texts = [format_.call("add", members) for members in (one, four)]
    texts[1] += (4 * len(texts[0]) - len(texts[1])) * " "
    (few, held), (many, more_held) = (cost(name, text) for text in texts)
    assert many < 4.6 * few
    assert max(held, more_held) <= 32


@every_format
@pytest.mark.parametrize(
    "error", [RecursionError(), UnicodeEncodeError("utf-8", "x", 0, 1, ""), MemoryError(), KeyError()]
)
def test_an_error_in_a_parser_turns_its_text_into_content(
    name: str, format_: Format, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    for place in ("outrider.server.json_text.string", "outrider.server.source.Source.open_call"):
        with monkeypatch.context() as patch:
            patch.setattr(place, fail)
            text = format_.call("add", [("text", '"x"')]) + " and more"
            if "open_call" in place or name in ("hermes", "llama3_json"):
                assert read(name, text, list(range(1, len(text)))) == [Text(text)]
            assert whole(name, text).content.endswith(" and more")


@every_format
@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_changed_texts_read_alike_whole_and_in_pieces(name: str, format_: Format, count: int) -> None:
    dice = random.Random(7)
    pieces = [*format_.marks, '"', "\\", "{", "}", "[", "]", ",", ":", "\n", "add", "1", "\\u", "'", "<", "=", "null"]
    source = format_.calls(format_.call("add", MEMBERS), format_.call("now", []))
    for _ in range(count):
        text = source
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(text))
            text = text[:at] + dice.choice(["", *pieces]) + text[at + dice.randint(0, 3) :]
        cuts = sorted(dice.sample(range(1, len(text)), min(8, len(text) - 1)))
        events = read(name, text)
        assert read(name, text, cuts) == events, text
        written = "".join(event.text for event in events if isinstance(event, Arguments))
        for call in whole(name, text).calls:
            assert json_text.kind_of(call.arguments) == "object", text
            assert call.arguments in written


def test_arguments_in_front_of_the_name_and_other_members() -> None:
    def calls(text: str, name: str = "hermes") -> list[tuple[str, str]]:
        return [(call.name, call.arguments) for call in whole(name, text).calls]

    assert calls('<tool_call>{"arguments": {"a":1}, "name": "add"}</tool_call>') == [("add", '{"a":1}')]
    assert calls('{"type": "function", "name": "add", "parameters": {"a":1}}', "llama3_json") == [("add", '{"a":1}')]
    for text in (
        '{"name": "now"}',
        '{"name": "now", "depth": 12}',
        '{"name": "now", "arguments": {}, "depth": 12}',
        '{"name": "now", "arguments": {}, "name": "add"}',
        '{"name": "now", "arguments": "{}"}',
        '{"name": "now", "arguments": null}',
        '{"name": "now", "arguments": []}',
        '{"arguments": {}}',
        '{"type": "object", "name": "now", "arguments": {}}',
        '["name", "now"]',
        "{}",
    ):
        assert whole("hermes", f"<tool_call>{text}</tool_call>").content == f"<tool_call>{text}</tool_call>"
        assert whole("llama3_json", text).content == text
        assert whole("mistral", f"[TOOL_CALLS]{text}").content == f"[TOOL_CALLS]{text}"


def test_mistrals_own_ids_are_used_and_others_have_their_form() -> None:
    (call,) = whole("mistral", '[TOOL_CALLS]add[CALL_ID]abc123def[ARGS]{"a":1}').calls
    assert (call.id, call.name, call.arguments) == ("abc123def", "add", '{"a":1}')
    (call,) = whole("mistral", '[TOOL_CALLS][{"id": "Abc123de9", "name": "add", "arguments": {"a":1}}]').calls
    assert call.id == "Abc123de9"
    for text in ('[TOOL_CALLS]add[CALL_ID]toolong123def[ARGS]{"a":1}', '[TOOL_CALLS]add{"a":1}'):
        (call,) = whole("mistral", text).calls
        assert re.fullmatch("[a-zA-Z0-9]{9}", call.id) and call.name == "add"


def test_values_between_tags_have_the_type_of_the_schema() -> None:
    def arguments(key: str, text: str) -> Any:
        call = f"<function=add><parameter={key}>\n{text}\n</parameter></function>"
        return json.loads(the_call("qwen3_xml", call).arguments)[key]

    assert arguments("a", "5") == 5 and arguments("text", "5") == "5" and arguments("unknown", "5") == "5"
    assert arguments("a", "True") is True and arguments("a", "None") is None and arguments("text", "None") == "None"
    assert arguments("a", "five") == "five" and arguments("a", "NaN") == "NaN" and arguments("a", " 5 ") == 5
    assert arguments("object", '{"x": 1}') == {"x": 1} and arguments("object", "null") is None
    assert arguments("list", "[1]") == [1] and arguments("list", "{}") == "{}"
    assert arguments("object", "{'x': [True, None]}") == {"x": [True, None]} and arguments("list", "['x'") == "['x'"
    assert arguments("text", "  two\n\n lines ") == "  two\n\n lines "


def test_literals_of_python_become_json() -> None:
    def arguments(text: str) -> str:
        return the_call("pythonic", f"[add({text})]").arguments

    assert arguments("a=1_000, list=[0x1F, -.5, 1., [], {}]") == '{"a": 1000, "list": [31, -0.5, 1.0, [], {}]}'
    assert json.loads(arguments(r"text='\x41\u00fc\n\101\'\N{BULLET}\d'")) == {
        "text": "AüA\n".replace("A\n", "\nA") + "'•\\d"
    }
    assert arguments(r"text='\ud83d'") == r'{"text": "\ud83d"}'
    assert json.loads(arguments("object={'x': [True, None,], 'y': \"it's\",}")) == {
        "object": {"x": [True, None], "y": "it's"}
    }
    for text in (
        "[add(1)]",
        "[add(a=b)]",
        "[add(a=1+2)]",
        "[add(a=f'x')]",
        "[add(a=-inf)]",
        "[add(a={1: 2})]",
        "[]",
        "[1, 2]",
    ):
        assert whole("pythonic", text) == WholeAnswer(content=text)


def test_channels_of_harmony() -> None:
    analysis = "<|channel|>analysis<|message|>We call.<|end|>"
    header = "<|start|>assistant<|channel|>commentary"
    found = whole("openai", f'{analysis}{header}<|message|>Now:<|end|>{header} to=functions.add<|message|>{{"a": 1}}')
    assert (found.reasoning, found.content, found.calls[0].arguments) == ("We call.", "Now:", '{"a": 1}')
    for text in (
        '<|start|>assistant to=functions.add<|channel|>commentary <|constrain|>json<|message|>{"a": 1}',
        '<|channel|>analysis to=functions.add code<|message|>\n{"a": 1}<|call|>',
    ):
        assert the_call("openai", text).arguments == '{"a": 1}'
    final = whole("openai", f"{analysis}<|start|>assistant<|channel|>final<|message|>Hello<|return|>")
    assert (final.reasoning, final.content) == ("We call.", "Hello")
    other = f"{header} to=browser.search code<|message|>{{}}<|call|>"
    assert whole("openai", other).content == other


def test_only_the_first_call_is_kept_if_calls_are_not_parallel() -> None:
    call = FORMATS["hermes"][0].call
    text = call("add", MEMBERS) + call("now", []) + call("add", [("text", '"x"'), ("a", "NaN")])
    one = AnswerReader(tools=reader("hermes"), is_parallel=False)
    found = one.read_whole(text, "stop")
    assert [made.name for made in found.calls] == ["add"] and found.content == call(
        "add", [("text", '"x"'), ("a", "NaN")]
    )


def test_a_call_that_breaks_off_is_text_in_a_whole_answer_and_told_in_a_stream() -> None:
    text = '<tool_call>{"name": "add", "arguments": {"text": "x", "a": NaN}}</tool_call>'
    assert whole("hermes", text) == WholeAnswer(content=text)
    begin, written, broken, rest = read("hermes", text)
    assert isinstance(begin, CallBegin) and written == Arguments('{"text": "x", "a": ')
    assert isinstance(broken, CallBroken) and isinstance(rest, Text) and broken.text + rest.text == text


def test_an_unknown_parser_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"'nothing' is not known\. Known: deepseek_v3, .*hermes, llama3_json"):
        ServerOptions(tool_call_parser="nothing")
