"""The grammar in llguidance's format for each form that a request may ask for.

Refuses what holds no finite text, and what llguidance would not keep as it was asked for.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from outrider.core.errors import RequestError
from outrider.core.sampling_params import StructuredOutputsParams
from outrider.engine.languages.ebnf import is_ebnf, plain_ebnf
from outrider.engine.languages.inhabitants import Inhabitants, pruned
from outrider.engine.languages.json_numbers import load_exactly
from outrider.engine.languages.json_schema import Node, PlainSchema, parts, read_schema
from outrider.engine.languages.patterns import translate_whole
from outrider.engine.languages.rules import without_dead_rules

if TYPE_CHECKING:  # llguidance itself is imported for the first grammar only
    from llguidance import LLMatcher, LLTokenizer

_SHORT_ESCAPES = 'nrbtf\\"'
"""Escapes that give each text one spelling."""
_MAX_LEVELS = 1200
"""Levels of all definitions together: llguidance reads them by recursion, and its stack is finite."""
_MAX_NAMED = 3
"""Parts of a schema that an error names."""


def compile_language(asked: StructuredOutputsParams, vocabulary: "LLTokenizer") -> str:
    """The grammar in llguidance's format, which llguidance may still refuse. Raises RequestError."""
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import gbnf_to_lark

    if asked.json is not None or asked.json_object:
        document = load_exactly(asked.json) if isinstance(asked.json, str) else {"type": "object"}
        schema = _JsonCompiler(read_schema(document), vocabulary)
        if schema.reason:
            raise RequestError(schema.reason)
        return LLMatcher.grammar_from_json_schema(schema.text)
    if asked.regex is not None:
        return LLMatcher.grammar_from_regex(translate_whole(asked.regex))
    if asked.choice is not None:
        texts = [json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f") for text in asked.choice]
        return LLMatcher.grammar_from_lark("start: " + " | ".join(texts))
    assert asked.grammar is not None
    source, root = asked.grammar, "start"
    if is_ebnf(source):
        source, root = gbnf_to_lark(plain_ebnf(source)), "root"

    def read_inner(text: str) -> str | None:
        schema = _JsonCompiler(read_schema(load_exactly(text)), vocabulary)
        return None if schema.reason else schema.text

    def has_text(grammar: str) -> bool:
        return _has_text(LLMatcher(vocabulary, LLMatcher.grammar_from_lark(grammar), log_level=0)) is not False

    ends = [vocabulary.decode_bytes([token_id]).decode(errors="replace") for token_id in vocabulary.eos_tokens]
    ends += [f"<[{token_id}]>" for token_id in vocabulary.eos_tokens]
    lark = without_dead_rules(source, read_schema=read_inner, has_text=has_text, end_tokens=ends, root=root)
    return LLMatcher.grammar_from_lark(lark)


class _JsonCompiler:
    """A schema as llguidance gets it in `text`, or the `reason` why nothing meets it."""

    def __init__(self, schema: PlainSchema, vocabulary: "LLTokenizer") -> None:
        try:
            self._compile(schema, vocabulary)
        except RecursionError:
            raise RequestError("structured_outputs: json is nested too deeply. Give a flatter schema.") from None

    def _compile(self, schema: PlainSchema, vocabulary: "LLTokenizer") -> None:
        _check_depth(schema)
        self._vocabulary = vocabulary
        self._options = dict(schema.options)
        nodes = [part for node in (schema.root, *schema.definitions.values()) for part in _nodes(node)]
        if any(_has_free_names(node) for node in nodes):
            self._spell_names_one_way(nodes)
        inhabitants = Inhabitants(schema, has_string=self._has_string)
        without_dead_parts = pruned(schema, inhabitants)
        self.reason = self._reason(schema, inhabitants) if without_dead_parts.root is False else ""
        self.text = self._text(without_dead_parts.document)

    def _spell_names_one_way(self, nodes: list[dict[str, Any]]) -> None:
        """Escapes like \\u0061 would let a free name spell a name that the schema keeps for something else."""
        for text in (text for node in nodes for text in _texts(node)):
            if any((character < " " and character not in "\b\t\n\f\r") or character == "\x7f" for character in text):
                raise RequestError(
                    f"structured_outputs: json holds the text {text!r} with control characters beside free property "
                    "names. Add additionalProperties: false, or leave the text out."
                )
        self._options["json_allowed_escapes"] = _SHORT_ESCAPES

    def _text(self, document: dict[str, Any]) -> str:
        return json.dumps({"x-guidance": self._options} | document)

    def _matcher(self, document: dict[str, Any]) -> "LLMatcher":
        from llguidance import LLMatcher

        grammar = LLMatcher.grammar_from_json_schema(self._text(document))
        return LLMatcher(self._vocabulary, grammar, log_level=0)

    def _has_string(self, schema: dict[str, Any]) -> bool | None:
        return _has_text(self._matcher(schema))

    def _reason(self, schema: PlainSchema, inhabitants: Inhabitants) -> str:
        matcher = self._matcher(schema.document)
        if matcher.is_error() and "Unsatisfiable" in matcher.get_error():
            return f"structured_outputs: {matcher.get_error()[:600]}. Correct the schema."
        dead = [f"#/$defs/{name}" for name, node in schema.definitions.items() if not inhabitants.has_value(node)]
        named = f" ({', '.join(dead[:_MAX_NAMED])} can never end)" if dead else ""
        return f"structured_outputs: no finite JSON meets the schema{named}. Correct the schema."


def _has_text(matcher: "LLMatcher") -> bool | None:
    """False if certainly no text matches one terminal; None if that cannot be said."""
    if matcher.is_error():
        return False if "Unsatisfiable" in matcher.get_error() else None
    matcher.compute_bitmask()
    return not matcher.is_error()


def _check_depth(schema: PlainSchema) -> None:
    """Raise RecursionError if llguidance may meet too many levels, in whatever order it follows references."""
    if sum(map(_num_levels, (schema.root, *schema.definitions.values()))) > _MAX_LEVELS:
        raise RecursionError


def _num_levels(node: Node) -> int:
    return 1 + max(map(_num_levels, parts(node)), default=0) if isinstance(node, dict) else 1


def _nodes(node: Node) -> Iterator[dict[str, Any]]:
    """A schema and all its subschemas, without those behind references."""
    if isinstance(node, dict):
        yield node
        for part in parts(node):
            yield from _nodes(part)


def _has_free_names(node: dict[str, Any]) -> bool:
    """True if an object may have names that the schema does not list."""
    types = node.get("type", "object")
    is_object = types == "object" or (isinstance(types, list) and "object" in types)
    is_closed = node.get("additionalProperties") is False and not node.get("patternProperties")
    has_names = any(key in node for key in ("properties", "required", "patternProperties", "additionalProperties"))
    return is_object and not is_closed and (has_names or "type" in node)


def _texts(node: dict[str, Any]) -> Iterator[str]:
    """Names and constants of one schema."""
    yield from node.get("properties", ())
    yield from node.get("required", ())
    for value in (*node.get("enum", ()), *([node["const"]] if "const" in node else ())):
        yield from _texts_in(value)


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts_in(item)
