"""A language without a finite text is refused at admission; one with a finite text is not, and writes it."""

import json
import random
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest

from outrider import RequestError, StructuredOutputsParams
from outrider.engine.tokenizer import Tokenizer
from tests.support.grammar_writer import GrammarWriter

from .tokenizers_made_here import save_byte_level


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> GrammarWriter:
    directory = save_byte_level(tmp_path_factory.mktemp("finite"))
    return GrammarWriter(Tokenizer(directory), vocab_size=420, eos_token_ids=(0,))


def closed(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    parts = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return parts | more


def where(root: Mapping[str, Any], **definitions: Any) -> dict[str, Any]:
    return {**root, "$defs": definitions}


N, M = {"$ref": "#/$defs/n"}, {"$ref": "#/$defs/m"}
NULL = {"type": "null"}
EMPTY_SCHEMAS = {
    "a reference to itself": where(N, n=N),
    "two that mean each other": where(N, n=M, m=N),
    "the root": {"$ref": "#"},
    "a required property": where(N, n=closed({"c": N})),
    "a required property that is a loop": where(closed({"v": N}), n=N),
    "a required name without properties": where(N, n={"type": "object", "required": ["c"], "additionalProperties": N}),
    "a required name by pattern": where(
        N, n={"type": "object", "required": ["c"], "patternProperties": {"^c": N}, "additionalProperties": True}
    ),
    "items": where(N, n={"type": "array", "items": N, "minItems": 1}),
    "prefixItems": where(N, n={"type": "array", "prefixItems": [NULL, N], "minItems": 2}),
    "items behind a prefix": where(N, n={"type": "array", "prefixItems": [NULL], "items": N, "minItems": 2}),
    "anyOf": where(N, n={"anyOf": [closed({"c": N}), {"type": "array", "items": N, "minItems": 1}]}),
    "oneOf": where(N, n={"oneOf": [closed({"c": N}), closed({"d": M})]}, m={"allOf": [N]}),
    "allOf that requires it elsewhere": where(N, n={"allOf": [{"properties": {"a": N}}, closed({"a": True})]}),
    "siblings of a reference": where(N, n=M | {"required": ["c"]}, m={"type": "object", "properties": {"c": N}}),
    "two that agree on no value": where({"allOf": [N, M]}, n=closed({"a": NULL}), m=closed({"a": {"type": "boolean"}})),
    "a text and its pattern": {"const": "x", "pattern": "^y"},
    "a text and its length": {"enum": ["a", "b"], "minLength": 2},
    "a pattern and a length": {"type": "string", "pattern": "^a{3}$", "maxLength": 2},
    "an empty class": {"type": "string", "pattern": r"^[^\s\S]$"},
    "a range": {"type": "integer", "minimum": 3, "maximum": 2},
    "a range without a whole number": {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
    "multiples": {"type": "integer", "allOf": [{"multipleOf": 6}, {"multipleOf": 4}], "minimum": 1, "maximum": 11},
    "types": {"type": "string", "allOf": [{"type": "integer"}]},
    "false": {"anyOf": [False, {"not": {}}]},
    "a required false": closed({"a": False}),
    "too many names": {"type": "object", "required": ["a", "b"], "maxProperties": 1},
    "too few names": where(closed({"a": NULL}) | {"properties": {"a": NULL, "b": N}, "minProperties": 2}, n=N),
    "draft 4": {"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer", "minimum": 1, "maximum": 1,
                "exclusiveMinimum": True},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(EMPTY_SCHEMAS))
def test_a_schema_that_nothing_meets_is_refused(writer: GrammarWriter, name: str) -> None:
    for schema in (EMPTY_SCHEMAS[name], {"type": "array", "prefixItems": [EMPTY_SCHEMAS[name]], "minItems": 1}):
        if schema is not EMPTY_SCHEMAS[name] and "#" in json.dumps(schema):
            continue  # its references are relative to its own document
        with pytest.raises(RequestError, match=r"structured_outputs: (no finite JSON|no finite text|Unsatisfiable)"):
            writer.write(StructuredOutputsParams(json=schema), random.Random(1))


FINITE_SCHEMAS = {
    "an optional loop": where(closed({"v": NULL}) | {"properties": {"v": NULL, "w": N}}, n=N),
    "an optional false behind a reference": where(
        {"type": "object", "properties": {"a": N}, "additionalProperties": False}, n=False
    ),
    "a list of itself": where(N, n={"type": "array", "items": N}),
    "a way out": where(N, n={"anyOf": [closed({"c": N}), NULL]}),
    "a way out through another": where(N, n={"anyOf": [M, N]}, m={"anyOf": [closed({"n": N}), closed({"m": NULL})]}),
    "a dead branch": where({"anyOf": [N, {"type": "boolean"}]}, n=closed({"c": N})),
    "dead items": where({"type": "array", "items": N}, n=closed({"c": N})),
    "a dead end of a prefix": where({"type": "array", "prefixItems": [NULL, N], "items": NULL}, n=N),
    "a tree": where(N, n={"type": "object", "properties": {"l": N, "r": N}, "additionalProperties": False}),
    "a list of pairs": where(
        N, n={"anyOf": [NULL, {"type": "array", "prefixItems": [NULL, N], "items": False, "minItems": 2}]}
    ),
    "a choice by a tag": where(
        {"oneOf": [N, M]},
        n=closed({"kind": {"const": "n"}, "x": {"type": "integer", "maximum": 9}}),
        m=closed({"kind": {"const": "m"}, "y": {"oneOf": [N, NULL]}}),
    ),
    "multiples": {"type": "integer", "allOf": [{"multipleOf": 6}, {"multipleOf": 4}], "minimum": 1, "maximum": 12},
    "a touching range": {"type": "integer", "exclusiveMinimum": 1, "maximum": 2},
    "at least one name": {
        "type": "object", "properties": {"a": NULL, "b": NULL}, "minProperties": 1, "additionalProperties": False
    },
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FINITE_SCHEMAS))
def test_a_schema_that_something_meets_is_taken(writer: GrammarWriter, name: str) -> None:
    """And every text ends: no branch leads where there is no end."""
    for seed in range(5):
        written = writer.write(StructuredOutputsParams(json=FINITE_SCHEMAS[name]), random.Random(seed))
        assert written.end == "stop", written
        jsonschema.validate(json.loads(written.text), FINITE_SCHEMAS[name])


@pytest.mark.parametrize("regex", [r"[^\s\S]", r"a[^\w\W]b", r"(x[^\d\D])+"])
def test_a_regex_that_nothing_matches_is_refused(writer: GrammarWriter, regex: str) -> None:
    with pytest.raises(RequestError, match="no finite text meets"):
        writer.write(StructuredOutputsParams(regex=regex), random.Random(1))
