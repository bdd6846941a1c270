"""Tool calls in texts: every parser of the folder, however the text is cut; everything else stays text."""

import json
import random

import pytest

from outrider import ConfigError
from outrider.core import plugins
from outrider.server import tool_parsers
from outrider.server.options import ServerOptions
from outrider.server.tool_calls import Call, CallList, Piece
from outrider.server.tools import find_parser

ADD, NOTHING = Call("add", '{"a": 1, "text": "</x> ü"}'), Call("now", "{}")
ARGUMENTS = json.loads(ADD.arguments)

CASES: dict[str, list[tuple[str, list[Piece]]]] = {
    "hermes": [
        (f'<tool_call>\n{{"name": "add", "arguments": {ADD.arguments}}}\n</tool_call>', [ADD]),
        (f'Hm. <tool_call>{{"name": "now"}}</tool_call>\n<tool_call>{{"name": "add", "arguments": {ADD.arguments}}}',
         ["Hm. ", NOTHING, "\n", ADD]),
        ("a < b, <tool_ c", ["a < b, <tool_ c"]),
        ("<tool_call>no</tool_call>!", ["<tool_call>no</tool_call>!"]),
        ("<tool_call>{", ["<tool_call>{"]),
    ],
    "mistral": [
        (f'[TOOL_CALLS][{{"name": "add", "arguments": {ADD.arguments}}}, {{"name": "now", "arguments": {{}}}}]',
         [ADD, NOTHING]),
        (f"Well [TOOL_CALLS]add[ARGS]{ADD.arguments}[TOOL_CALLS]now{{}}", ["Well ", ADD, NOTHING]),
        ("[TOOL_ no", ["[TOOL_ no"]),
        ("[TOOL_CALLS]no", ["[TOOL_CALLS]no"]),
        ("[TOOL_CALLS][]", ["[TOOL_CALLS][]"]),
    ],
    "llama3_json": [
        (f'{{"name": "add", "parameters": {ADD.arguments}}}; {{"name": "now", "parameters": {{}}}}', [ADD, NOTHING]),
        (f'<|python_tag|>{{"name": "add", "parameters": {ADD.arguments}}}', [ADD]),
        ("It is {}.", ["It is {}."]),
        ('{"a": 1}', ['{"a": 1}']),
        ("<|", ["<|"]),
    ],
}  # fmt: skip


def test_every_parser_has_cases() -> None:
    assert sorted(CASES) == plugins.names(tool_parsers)


def read(name: str, text: str, ends: list[int]) -> list[Piece]:
    """The pieces, neighbouring texts joined."""
    parser = find_parser(name)()
    found: list[Piece] = []
    for begin, end in zip([0, *ends], [*ends, len(text)], strict=True):
        found += parser.push(text[begin:end])
    found += parser.finish()
    joined: list[Piece] = []
    for piece in found:
        if joined and isinstance(piece, str) and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


@pytest.mark.parametrize("name", sorted(CASES))
def test_calls_are_found_however_the_text_comes(name: str) -> None:
    dice = random.Random(1)
    for text, expected in CASES[name]:
        cuts = [[], list(range(1, len(text)))] + [sorted(dice.sample(range(len(text)), 2)) for _ in range(30)]
        for ends in cuts:
            assert read(name, text, ends) == expected, (text, ends)


def test_text_in_front_of_a_call_is_not_held_back() -> None:
    parser = find_parser("hermes")()
    assert parser.push("Let me see. <tool") == ["Let me see. "]
    assert parser.push("box>") == ["<toolbox>"]


def test_a_list_of_calls_is_given_call_by_call() -> None:
    parser = CallList()
    text = json.dumps([{"name": "add", "parameters": ARGUMENTS}, {"name": "now", "parameters": {}}])
    found = [call for character in text for call in parser.push(character)]
    assert found == [Call("add", json.dumps(ARGUMENTS, ensure_ascii=False)), NOTHING]
    assert CallList().push(text[:30]) == []


def test_an_unknown_parser_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"'nothing' is not known\. Known: hermes, llama3_json, mistral"):
        ServerOptions(tool_call_parser="nothing")
