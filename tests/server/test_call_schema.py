"""Schemas of answers that must call tools: each tool keeps its own references, as the choice of one tool does."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from outrider import RequestError, StructuredOutputsParams
from outrider.engine.tokenizer import Tokenizer
from outrider.server.call_schema import list_schema
from tests.support.grammar_writer import GrammarWriter

ZOO = Path(__file__).resolve().parents[2] / "zoo" / "tiny"
NULL, YES = {"type": "null"}, {"$defs": {"U": {"const": True}}}


@pytest.fixture(scope="module")
def writer() -> GrammarWriter:
    return GrammarWriter(Tokenizer(ZOO), vocab_size=3072, eos_token_ids=(3071, 3069))


def closed(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    parts = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return parts | more


def a(reference: str, **more: Any) -> dict[str, Any]:
    return closed({"a": {"$ref": reference}}, **more)


def written(writer: GrammarWriter, schema: Mapping[str, Any], seed: int) -> Any:
    compact = {"x-guidance": {"whitespace_flexible": False}} | schema
    found = writer.write(StructuredOutputsParams(json=compact), random.Random(seed))
    assert found.end == "stop"
    return json.loads(found.text)


TREE = {"type": "object", "properties": {"c": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1}}}
CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "definitions": (a("#/definitions/A", definitions={"A": NULL}), {"a": None}),
    "$defs": (a("#/$defs/A", **{"$defs": {"A": NULL}}), {"a": None}),
    "properties": (closed({"a": NULL, "b": {"$ref": "#/properties/a"}}), {"a": None, "b": None}),
    "$id": (a("#/$defs/U", **{"$id": "https://example.org/s.json", "$defs": {"U": NULL}}), {"a": None}),
    "$id, whole": (
        a("https://example.org/s.json#/$defs/U", **{"$id": "https://example.org/s.json", "$defs": {"U": NULL}}),
        {"a": None},
    ),
    "$id, relative": (
        a("u.json", **{"$id": "https://example.org/s.json", "$defs": {"U": NULL | {"$id": "u.json"}}}),
        {"a": None},
    ),
    "urn": (a("#/$defs/U", **{"$id": "urn:example:s", "$defs": {"U": NULL}}), {"a": None}),
    "$id within": (
        closed({"b": a("#/$defs/U", **{"$id": "https://example.org/b", "$defs": {"U": NULL}})}, **YES),
        {"b": {"a": None}},
    ),
    "urn within": (
        closed({"b": a("#/$defs/U", **{"$id": "urn:example:b", "$defs": {"U": NULL}})}, **YES),
        {"b": {"a": None}},
    ),
    "anchor": (a("#here", **{"$defs": {"U": NULL | {"$anchor": "here"}}}), {"a": None}),
    "escapes": (a("#/x~1y/%25~0", **{"x/y": {"%~": NULL}}), {"a": None}),
    "a list": (a("#/x/1", x=[False, NULL]), {"a": None}),
    "a name that is a keyword": (closed({"$ref": NULL, "$id": NULL}), {"$ref": None, "$id": None}),
    "draft 7": (
        a("#/definitions/A", **{"$schema": "http://json-schema.org/draft-07/schema#",
          "definitions": {"A": {"type": "array", "items": [NULL], "additionalItems": False, "minItems": 1}}}),
        {"a": [None]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_list_of_calls_takes_what_one_call_takes(writer: GrammarWriter, name: str) -> None:
    parameters, arguments = CASES[name]
    assert written(writer, parameters, 1) == arguments
    tools = [{"name": "f", "parameters": parameters}, {"name": "g", "parameters": a("#/$defs/U", **YES)}]
    seen = set()
    for seed in range(8):
        (call,) = written(writer, list_schema(tools, is_parallel=False), seed)
        seen.add(call["name"])
        assert call["parameters"] == (arguments if call["name"] == "f" else {"a": True})
    assert seen == {"f", "g"}


def test_definitions_of_one_name_may_differ(writer: GrammarWriter) -> None:
    def parameters(kind: str) -> dict[str, Any]:
        return a("#/$defs/U", **{"$defs": {"U": {"type": kind}}})

    tools = [{"name": kind, "parameters": parameters(kind)} for kind in ("null", "boolean", "array")]
    for seed in range(12):
        for call in written(writer, list_schema(tools, is_parallel=True), seed):
            assert type(call["parameters"]["a"]) is {"null": type(None), "boolean": bool, "array": list}[call["name"]]


def test_a_tree_stays_a_tree(writer: GrammarWriter) -> None:
    """Its "#" is the tool's own schema, not the list."""
    schema = list_schema([{"name": "f", "parameters": TREE | {"additionalProperties": False}}], is_parallel=True)
    for seed in range(6):
        for call in written(writer, schema, seed):
            node = call["parameters"]
            while node:
                assert list(node) == ["c"]
                node = node["c"][0] if node["c"] else None


@pytest.mark.parametrize("reference", ["#/$defs/B", "#b", "https://example.org/other.json", "#/properties/a/x"])
def test_a_reference_that_leads_nowhere_is_refused(reference: str) -> None:
    with pytest.raises(RequestError, match=r"\$ref '"):
        list_schema([{"name": "f", "parameters": a(reference, **{"$defs": {"A": NULL}})}], is_parallel=True)


@pytest.mark.parametrize("key", ["$defs", "definitions"])
@pytest.mark.parametrize("value", [[1], 3, "x", None])
def test_definitions_that_are_not_an_object_are_refused(key: str, value: Any) -> None:
    with pytest.raises(RequestError, match=r"(\$defs|definitions) is .*Give an object"):
        list_schema([{"name": "f", "parameters": {"type": "object", key: value}}], is_parallel=True)
