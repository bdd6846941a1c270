"""Arguments that a model writes as text between tags: each value gets the type that the tool's schema has for it.

A string is passed on while it is written. Any other value is passed on as it is written if it is JSON of an allowed
type, and a list or dict as Python writes it is turned into JSON; otherwise it becomes a string: nothing is lost.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from outrider.server import json_text, python_literals
from outrider.server.source import SPACE, Source, Steps

_MAX_SCHEMAS = 64
"""Schemas that are read for one value: a reference may lead to itself."""
_WORDS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false", "None": "null"}
"""JSON for words that models write as in Python."""
_KIND_OF = {"integer": "number"}
"""Types of schemas that are one kind of value in JSON."""
_KINDS = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}


class TaggedArguments:
    """The arguments of one call, written as a JSON object key by key."""

    def __init__(self, source: Source, schema: Mapping[str, Any]) -> None:
        self._source = source
        self._schema = schema
        self._num_keys = 0

    def read_value(self, key: str, *, end: str, followers: tuple[str, ...], padding: str = "") -> Steps[None]:
        """Takes a value and its `end` mark. The value may quote the mark, which ends it only if one of `followers` is
        next, after white space. `padding`, a newline or nothing, is around the value and not a part of it."""
        source = self._source
        if padding:
            yield from source.option(padding)
        kinds = kinds_of(self._schema, key)
        value = _String(source) if kinds <= {"string"} else _Other(source, kinds)
        source.write_arguments(f"{', ' if self._num_keys else '{'}{json_text.quoted(key)}: ")
        self._num_keys += 1
        value.begin()
        while True:
            text, is_at_end = yield from source.take_part(end, trimmed=len(padding))
            value.add(text)
            if is_at_end:
                quoted = ((yield from source.option(padding)) or "") if padding else ""
                quoted += yield from source.expect(end)
                quoted += yield from source.take_run(SPACE)
                if (yield from source.next_is(*followers)):
                    break
                value.add(quoted)
        value.end()
        source.confirm()

    def close(self) -> None:
        """Ends the object."""
        self._source.write_arguments("}" if self._num_keys else "{}")
        self._source.close_arguments()


class _String:
    def __init__(self, source: Source) -> None:
        self._source = source

    def begin(self) -> None:
        self._source.write_arguments('"')
        self._source.confirm()

    def add(self, text: str) -> None:
        self._source.write_arguments(json_text.quoted(text)[1:-1])

    def end(self) -> None:
        self._source.write_arguments('"')


class _Other:
    def __init__(self, source: Source, kinds: set[str]) -> None:
        self._source = source
        self._kinds = kinds
        self._texts: list[str] = []

    def begin(self) -> None:
        pass

    def add(self, text: str) -> None:
        self._texts.append(text)

    def end(self) -> None:
        text = "".join(self._texts)
        literal = text.strip()
        literal = _WORDS.get(literal, literal)
        if literal[:1] in ("[", "{") and json_text.kind_of(literal) is None:
            literal = python_literals.as_json(literal) or literal
        is_allowed = json_text.kind_of(literal) in self._kinds
        self._source.write_arguments(literal if is_allowed else json_text.quoted(text))


def kinds_of(schema: Mapping[str, Any], key: str) -> set[str]:
    """Kinds of JSON values that an object's schema allows for `key`, as `json_text.kind_of` names them; empty if it
    does not say."""
    found: set[str] = set()
    for whole in _expanded(schema, schema):
        properties = whole.get("properties")
        given = properties.get(key) if isinstance(properties, dict) else None
        if given is None:
            given = whole.get("additionalProperties")
        for part in _expanded(given, schema):
            found |= _stated_kinds(part)
    return found


def _stated_kinds(schema: Mapping[str, Any]) -> set[str]:
    types = schema.get("type", [])
    names = types if isinstance(types, list) else [types]
    found = {_KIND_OF.get(name, name) for name in names if isinstance(name, str)}
    values = schema.get("enum", [])
    for value in (values if isinstance(values, list) else []) + ([schema["const"]] if "const" in schema else []):
        found.add(_KINDS.get(type(value), "null"))
    if not found and "properties" in schema:
        found.add("object")
    if not found and "items" in schema:
        found.add("array")
    return found


def _expanded(schema: Any, root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schema, and those that it refers to or combines."""
    waiting = [schema]
    for _ in range(_MAX_SCHEMAS):
        if not waiting:
            return
        part = waiting.pop()
        if not isinstance(part, Mapping):
            continue
        yield part
        waiting.append(_referred(part.get("$ref"), root))
        for name in ("anyOf", "oneOf", "allOf"):
            if isinstance(part.get(name), list):
                waiting += part[name]


def _referred(reference: Any, root: Mapping[str, Any]) -> Any:
    """The schema at a reference inside of `root`; None if there is none."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    place: Any = root
    for part in unquote(reference[1:]).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(place, list) and name.isdigit() and len(name) < 9 and int(name) < len(place):
            place = place[int(name)]
        else:
            place = place.get(name) if isinstance(place, Mapping) else None
    return place
