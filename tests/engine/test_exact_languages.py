"""Limits of llguidance: what it would not keep as asked for is kept another way, or refused by name."""

import json
from typing import Any

import pytest

from outrider import RequestError, StructuredOutputsParams
from outrider.engine.tokenizer import Tokenizer
from tests.support.grammar_writer import GrammarWriter

from .tokenizers_made_here import save_byte_level


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> GrammarWriter:
    directory = save_byte_level(tmp_path_factory.mktemp("exact"))
    return GrammarWriter(Tokenizer(directory), vocab_size=420, eos_token_ids=(0,))


INTEGER, TEXT = {"type": "integer"}, {"type": "string"}
OPEN = {"type": "object", "properties": {"a": INTEGER}, "additionalProperties": TEXT}
TAGGED = [{"type": "object", "properties": {"k": {"const": k}}, "required": ["k"]} for k in ("x", "y")]
DRAFT_4 = {"$schema": "http://json-schema.org/draft-04/schema#"}
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
CASES: list[tuple[Any, list[str], list[str]]] = [
    # a free name may not spell a listed one
    (OPEN, ['{"a":1}', '{"b":"x"}', '{"a":1,"b":"x"}'], ['{"a":"x"}', r'{"\u0061":"x"}', '{"b":1}']),
    ({"type": "object", "properties": {"a\n": INTEGER}, "additionalProperties": TEXT}, [r'{"a\n":1}'],
     [r'{"a\u000a":"x"}', r'{"a\u000A":"x"}', r'{"a\n":"x"}']),
    # numbers
    ({"const": 2**53}, [str(2**53)], [str(2**53 + 1), str(2**53 - 1)]),
    ({"const": 2**60}, [str(2**60)], [str(2**60 + 24), str(2**60 - 1)]),
    ({"enum": [0.1, -0.0, 3.0]}, ["0.1", "0", "3"], ["0.10000000000000001", "0.2"]),
    ({"type": "number", "maximum": 2**53}, [str(2**53), "0.5"], [str(2**53 + 1)]),
    ({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, ["0", str(2**62)], ["-1", str(2**64)]),
    ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, [str(-(2**62)), str(2**62)], [str(2**63)]),
    ({"type": "string", "minLength": 2.0}, ['"ab"'], ['"a"']),
    # keywords of one kind with others between them
    ({"minimum": 3, "anyOf": [INTEGER], "exclusiveMinimum": True} | DRAFT_4, ["4"], ["3"]),
    ({"patternProperties": {"^a": INTEGER}, "anyOf": [{"type": "object"}], "additionalProperties": False},
     ["{}", '{"ab":1}'], ['{"b":1}', '{"ab":"x"}']),
    ({"items": [INTEGER], "anyOf": [{"type": "array"}], "additionalItems": False} | DRAFT_7, ["[1]", "[]"],
     ["[1,2]", '["x"]']),
    # drafts
    ({"$ref": "#/definitions/A", "type": "string", "definitions": {"A": INTEGER}} | DRAFT_7, ["1"], ['"x"']),
    ({"$ref": "#/$defs/A", "minimum": 3, "$defs": {"A": INTEGER}}, ["3"], ["2"]),
    ({"type": "array", "prefixItems": [INTEGER], "items": TEXT} | DRAFT_7, ['["x"]'], ["[1]"]),
    # oneOf whose options share nothing
    ({"oneOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/y"}], "$defs": {"x": TAGGED[0], "y": TAGGED[1]}},
     ['{"k":"x"}'], ['{"k":"z"}']),
    ({"type": "integer", "oneOf": [{"maximum": 1}, {"minimum": 2}, TEXT]}, ["1", "2"], ['"x"']),
    ({"anyOf": [INTEGER], "oneOf": [{"maximum": 1}, {"type": "null"}]}, ["1"], ["2", "null"]),
    # keywords that say nothing
    ({"type": "array", "items": INTEGER, "uniqueItems": False, "maxItems": 1, "unevaluatedItems": True}, ["[1]"], []),
    ({"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": INTEGER}, ['{"a":1}'], []),
    # patterns
    ({"pattern": r"^\w\d\s$", "type": "string"}, ['"a1 "'], ['"é1 "', '"a\u0661 "']),
    ({"pattern": "^[[&&x]$", "type": "string"}, ['"["', '"&"', '"x"'], ['"y"']),
    ({"pattern": "a|^b$|c", "type": "string"}, ['"xax"', '"b"', '"xc"'], ['"xb"']),
    ({"pattern": "^.$", "type": "string"}, ['"x"'], ['"\u2028"', r'"\n"']),
    ({"const": "\x1b\x7f"}, [r'"\u001b\u007f"'], ['""']),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(CASES)))
def test_a_schema_is_kept_exactly(writer: GrammarWriter, index: int) -> None:
    schema, good, bad = CASES[index]
    asked = StructuredOutputsParams(json={"x-guidance": {"whitespace_flexible": False}} | schema)
    assert [text for text in good if not writer.accepts(asked, text)] == []
    assert [text for text in bad if writer.accepts(asked, text)] == []


CHAIN = {str(i): {"items": {"$ref": f"#/$defs/{i + 1}"}} for i in range(1400)} | {"1400": {}}
NAMED: list[tuple[str, str]] = [
    ('{"const": 9007199254740993}', "number 9007199254740993 of 'const or enum' cannot be kept exactly"),
    ('{"enum": [[{"a": 12345678901234567890}]]}', "number 12345678901234567890"),
    ('{"type": "number", "minimum": 1152921504606846976}', "of 'minimum' cannot be kept exactly"),
    ('{"type": "integer", "minimum": 18446744073709551615}', "of 'minimum' cannot be kept exactly"),
    ('{"maximum": 0.1000000000000000055}', "of 'maximum' cannot be kept exactly"),
    ('{"const": 1e999}', r"1E\+999"),
    ('{"const": 1e-999}', "1E-999"),
    ('{"const": Infinity}', "Infinity, which is not finite"),
    ('{"const": NaN}', "NaN, which is not finite"),
    ('{"minimum": true}', "minimum is True"),
    ('{"type": "object", "minProperties": 2}', "a free name may come twice"),
    ('{"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 2}]}', "two options of a oneOf"),
    ('{"oneOf": [{"pattern": "^a"}, {"pattern": "^b"}]}', "two options of a oneOf"),
    ('{"oneOf": [{"type": "string", "format": "uuid"}, {"maxLength": 5, "type": "string"}]}', "two options of a oneOf"),
    ('{"properties": {"\\u0001": {"const": 1}}}', "control characters beside free property names"),
    ('{"not": {"type": "string"}}', r"Unimplemented keys: \['not'\]"),
    ('{"if": {"type": "string"}, "then": false}', r"Unimplemented keys: \['if'\]"),
    ('{"dependencies": {"a": ["b"]}}', r"Unimplemented keys: \['dependencies'\]"),
    ('{"properties": {"a": {"contains": {}}}}', "at #/properties/a: Unimplemented"),
    ('{"$ref": "https://example.org/s.json"}', "leads to another document"),
    ('{"$ref": "#/$defs/x"}', "there is no '\\$defs'"),
    ('{"type": "text"}', "type is 'text'"),
    ('{"x-guidance": {"lenient": true}}', "lenient=True is not offered"),
    ('{"x-guidance": {"item_separator": "x"}}', "item_separator='x' is not offered"),
    ('{"pattern": "a(?=b)"}', r"has '\(\?=b' \(lookaround"),
    ('{"pattern": "\\\\bx"}', "word boundary"),
    ('{"pattern": "[]a]"}', "a class that begins with ]"),
    ('{"pattern": "[a"}', "invalid pattern .*a class without its ]"),
    (json.dumps({"$ref": "#/$defs/0", "$defs": CHAIN}), "nested too deeply"),
    ('{"items": {"items": ' * 2000 + "{}" + "}}" * 2000, "nested too deeply"),
]


@pytest.mark.parametrize("index", range(len(NAMED)))
def test_a_limit_is_named(writer: GrammarWriter, index: int) -> None:
    text, message = NAMED[index]
    with pytest.raises(RequestError, match=message):
        writer.accepts(StructuredOutputsParams(json=text), "1")


REGEXES = [
    (r"\<\/a\>\-\_", ["</a>-_"]),
    (r"[[a&&b\]-]+", ["[", "a&b", "]-"]),
    ("a{,2}b{x}", ["b{x}", "aab{x}"]),
    (r"\x41\u00e9\U0001F389\101", ["Aé🎉A"]),
    (r"(?P<n>a+?)(?:b|c)*?(?#no)", ["a", "aabc"]),
    (r"^(a|b)$", ["a", "b"]),
    (r"\Aa\Z", ["a"]),
    (r"(?i)ab(?s:.)", ["aB\n"]),
    (r"[]a]+[^]b]", ["]a]c"]),
    (r"\d\w\s", ["\u06619\u2003", "1é\x1c"]),
    (r"\D\W\S", ["a-b"]),
    (r"\p{Lu}[^\p{L}]", ["A1"]),
]


@pytest.mark.parametrize("index", range(len(REGEXES)))
def test_a_regex_means_what_python_means(writer: GrammarWriter, index: int) -> None:
    regex, texts = REGEXES[index]
    assert [text for text in texts if not writer.accepts(StructuredOutputsParams(regex=regex), text)] == []


@pytest.mark.parametrize(
    ("regex", "message"),
    [
        (r"(a)\1", "a reference to a group"),
        (r"a++", "possessive"),
        (r"(?>a)", "atomic"),
        (r"(?m)^a", "flags 'm'"),
        (r"\Ga", r"escape \\G"),
        ("[z-a]", "range from 'z' to 'a'"),
        ("a\\", "a backslash at the end"),
        (r"\ud800", "half of a surrogate pair"),
    ],
)
def test_a_form_of_regex_that_is_not_offered_is_named(writer: GrammarWriter, regex: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        writer.accepts(StructuredOutputsParams(regex=regex), "a")


def test_choices_are_kept_whatever_they_hold(writer: GrammarWriter) -> None:
    texts = ["\x7f", "\x00\n", 'a"\\', "\u2028", "é", "i", json.dumps({"a": 1})]
    asked = StructuredOutputsParams(choice=texts)
    assert [text for text in texts if not writer.accepts(asked, text)] == []
