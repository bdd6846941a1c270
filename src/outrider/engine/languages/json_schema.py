"""Reads a JSON schema of any draft into the plain form of draft 2020-12 that llguidance keeps exactly.

What the schema means stays as it is. References become "#/$defs/NAME", keywords of older drafts those of today, and
keywords that say nothing go. What llguidance would ignore, round or misread is refused by name. Knows no tokens.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd, lcm
from typing import Any, NoReturn

from outrider.core.errors import RequestError
from outrider.engine.languages.json_numbers import MAX_INTEGER, Number, checked, exact, is_number
from outrider.engine.languages.patterns import translate_search
from outrider.engine.languages.references import Place, References

Node = dict[str, Any] | bool
"""A schema in plain form."""

_TYPES = ("null", "boolean", "number", "integer", "string", "array", "object")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_APPLICATORS = ("allOf", "anyOf", "oneOf", "$ref", "const", "enum")
_SIMPLE = (
    *("type", "multipleOf", "pattern", "format", "items", "prefixItems", "additionalItems", "properties"),
    *("patternProperties", "additionalProperties", "required", *_BOUNDS, *_COUNTS),
)
_SAYS_NOTHING: dict[str, tuple[Any, ...]] = {
    "uniqueItems": (False,),
    "not": (False,),
    "propertyNames": (True, {}, {"type": "string"}),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "dependencies": ({},),
    "unevaluatedProperties": (True, {}),
    "unevaluatedItems": (True, {}),
    "if": (),
    "contains": (),
    "$dynamicRef": (),
    "$recursiveRef": (),
}
"""Keywords that llguidance does not implement, and the values that constrain nothing."""
_OPTIONS: dict[str, tuple[Any, ...]] = {
    "whitespace_flexible": (True, False),
    "item_separator": (",", ", "),
    "key_separator": (":", ": "),
}
"""Options of llguidance in x-guidance, and the values under which every output is JSON of the schema."""


_MAX_MULTIPLE = 10_000
"""Largest least common multiple of a schema's multipleOf, without its zeros at the end: an automaton has as many
states, 300 bytes each, and those of several may multiply."""
_MAX_PATTERN_PROPERTIES = 64
"""Maximum number of names in all patternProperties: each is compared with each other."""
_MAX_OPTIONS = 256
"""Maximum number of options of a oneOf: each is compared with each other, in Python."""
_MAX_PROPERTIES = 2048
"""Maximum number of names in all properties: one object compares each with each other."""


@dataclass(slots=True)
class PlainSchema:
    """A schema in plain form. Every reference is "#/$defs/NAME"."""

    root: Node
    definitions: dict[str, Node] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    """Options of llguidance that the caller gave in x-guidance."""

    @property
    def document(self) -> dict[str, Any]:
        """The whole as one JSON schema, without the options."""
        root = self.root if isinstance(self.root, dict) else {} if self.root else {"enum": []}
        return root | {"$defs": self.definitions} if self.definitions else root


def read_schema(document: Any, *, prefix: str = "") -> PlainSchema:
    """The plain form of a schema. `prefix` begins the names of its definitions. Raises RequestError."""
    try:
        return _Reader(document, prefix).schema
    except RecursionError:
        raise RequestError("structured_outputs: json is nested too deeply. Give a flatter schema.") from None


def parts(node: dict[str, Any]) -> list[Node]:
    """The subschemas of a schema."""
    found: list[Node] = [node[key] for key in ("items", "additionalProperties") if key in node]
    for key in ("allOf", "anyOf", "oneOf", "prefixItems"):
        found.extend(node.get(key, ()))
    for key in ("properties", "patternProperties"):
        found.extend(node.get(key, {}).values())
    return found


class _Reader:
    def __init__(self, document: Any, prefix: str) -> None:
        self._prefix = prefix
        self._references = References(document)
        self._names: dict[tuple[int, str, int], str] = {}
        self._waiting: list[tuple[str, Place, int, str]] = []
        self.schema = PlainSchema(False)
        self._multiple = Fraction(1)
        self._has_multiple = False
        self._num_names = {"properties": 0, "patternProperties": 0}
        if isinstance(document, dict):
            self.schema.options = _options(document.get("x-guidance"))
        self.schema.root = self._read(self._references.root, 2020, "#")
        while self._waiting:  # not at once: definitions that refer to each other may be many
            name, place, draft, reference = self._waiting.pop(0)
            self.schema.definitions[name] = self._read(place, draft, reference)

    def _read(self, place: Place, draft: int, path: str) -> Node:
        given = place.schema
        if isinstance(given, bool):
            return given
        if not isinstance(given, dict):
            _refuse(path, f"{_shown(given)} is not a schema. Give an object, true or false.")
        for key in ("$defs", "definitions"):
            if not isinstance(given.get(key, {}), dict):
                _refuse(path, f"{key} is {_shown(given[key])}. Give an object.")
        draft = _draft(given.get("$schema"), draft)
        if "$ref" in given and draft <= 7:  # in these drafts a reference stands alone
            given = {"$ref": given["$ref"]}
        if given.get("not") in (True, {}):
            return False
        _refuse_unimplemented(given, path)
        simple = self._simple(given, place, draft, path)
        applied = {key: self._applied(key, given[key], place, draft, path) for key in given if key in _APPLICATORS}
        # llguidance reads keywords in their order, those between two applicators together: so these stay together
        first = "properties" if "properties" in given else next((key for key in given if key in _SIMPLE), None)
        plain: dict[str, Any] = {}
        for key in given:
            if key == first:
                plain |= simple
            if key in applied:
                plain[key] = applied[key]
        return plain

    def _applied(self, key: str, value: Any, place: Place, draft: int, path: str) -> Any:
        if key == "$ref":
            return self._reference(value, place, draft, path)
        if key == "const":
            return _data(value, path)
        if not isinstance(value, list):
            _refuse(path, f"{key} is {_shown(value)}. Give a list.")
        if key == "oneOf" and len(value) > _MAX_OPTIONS:
            _refuse(path, f"oneOf has {len(value)} options; at most {_MAX_OPTIONS} are compared. Use anyOf, or fewer.")
        if key == "enum":
            return [_data(item, path) for item in value]
        return [self._read(place.part(item), draft, f"{path}/{key}/{i}") for i, item in enumerate(value)]

    def _reference(self, reference: Any, place: Place, draft: int, path: str) -> str:
        if not isinstance(reference, str):
            _refuse(path, f"$ref is {_shown(reference)}. Give a text.")
        target = self._references.resolve(reference, place.base)
        key = (id(target.schema), target.base, draft)
        if key not in self._names:
            name = self._name(reference)
            self._names[key] = name
            self.schema.definitions[name] = False  # until it is read
            self._waiting.append((name, target, draft, reference))
        return f"#/$defs/{self._names[key]}"

    def _name(self, reference: str) -> str:
        base = self._prefix + (re.sub(r"[^A-Za-z0-9_.-]", "", reference.rsplit("/", 1)[-1]) or "root")
        name, count = base, 1
        while name in self.schema.definitions:
            count += 1
            name = f"{base}.{count}"
        return name

    def _simple(self, given: dict[str, Any], place: Place, draft: int, path: str) -> dict[str, Any]:
        simple: dict[str, Any] = {}

        def read(value: Any, key: str) -> Node:
            return self._read(place.part(value), draft, f"{path}/{key}")

        types = _types(given, path)
        if types is not None:
            simple["type"] = given["type"]
        _read_bounds(given, simple, path, is_whole=types is not None and "integer" in types and "number" not in types)
        _read_counts(given, simple, path)
        if "multipleOf" in given:
            simple["multipleOf"] = _multiple(given["multipleOf"], path)
            self._check_multiple(exact(given["multipleOf"]), path)
        if "pattern" in given:
            simple["pattern"] = _pattern(given["pattern"], path)
        if "format" in given:
            simple["format"] = given["format"]
        _read_items(given, simple, draft, read, path)
        self._read_properties(given, simple, read, path)
        return simple

    def _check_multiple(self, value: Number, path: str) -> None:
        """Raise RequestError if the multiples of the schema together need too many states."""
        one = Fraction(value)
        if self._has_multiple:
            numerator = lcm(one.numerator, self._multiple.numerator)
            one = Fraction(numerator, gcd(one.denominator, self._multiple.denominator))
        self._multiple, self._has_multiple = one, True
        count = one.numerator
        while count % 10 == 0:
            count //= 10
        if count > _MAX_MULTIPLE:
            _refuse(
                path,
                f"with multipleOf={_shown(value)} the least common multiple of the schema's multipleOf is "
                f"{_shown(count)} (without zeros at its end); at most {_MAX_MULTIPLE} is compiled. Use smaller "
                "ones, or leave them out and check the output yourself.",
            )

    def _read_properties(
        self, given: dict[str, Any], simple: dict[str, Any], read: Callable[[Any, str], Node], path: str
    ) -> None:
        for key in ("properties", "patternProperties"):
            if key not in given:
                continue
            if not isinstance(given[key], dict):
                _refuse(path, f"{key} is {_shown(given[key])}. Give an object.")
            names = given[key]
            most = _MAX_PROPERTIES if key == "properties" else _MAX_PATTERN_PROPERTIES
            self._num_names[key] += len(names)
            if self._num_names[key] > most:
                _refuse(path, f"the schema has more than {most} names in {key}. Use fewer, or free names.")
            simple[key] = {
                (name if key == "properties" else _pattern(name, path)): read(value, f"{key}/{name}")
                for name, value in names.items()
            }
        if "additionalProperties" in given:
            simple["additionalProperties"] = read(given["additionalProperties"], "additionalProperties")
        required = given.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            _refuse(path, f"required is {_shown(required)}. Give a list of names.")
        if required:
            simple["required"] = list(dict.fromkeys(required))
        is_open = simple.get("additionalProperties") is not False or bool(simple.get("patternProperties"))
        if is_open and simple.get("minProperties", 0) > len(required) + 1:
            _refuse(path, "minProperties counts names that are free, and a free name may come twice. Require names.")


def _types(given: dict[str, Any], path: str) -> list[str] | None:
    if "type" not in given:
        return None
    types = given["type"] if isinstance(given["type"], list) else [given["type"]]
    for name in types:
        if name not in _TYPES:
            _refuse(path, f"type is {_shown(name)}. Use one of {', '.join(_TYPES)}.")
    return types


def _read_bounds(given: dict[str, Any], simple: dict[str, Any], path: str, *, is_whole: bool) -> None:
    bounds: dict[str, Any] = {}
    for key in _BOUNDS:
        if key not in given or (key.startswith("exclusive") and isinstance(given[key], bool)):  # as in draft 4
            continue
        if not is_number(given[key]):
            _refuse(path, f"{key} is {_shown(given[key])}. Give a number.")
        bounds[key] = exact(given[key])
    for plain, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if given.get(exclusive) is True and plain in bounds:  # draft 4
            bounds[exclusive] = bounds.pop(plain)
    for key, value in bounds.items():
        if is_whole and "aximum" in key and value > MAX_INTEGER:
            simple["maximum"] = MAX_INTEGER
        elif is_whole and "inimum" in key and value < -MAX_INTEGER:
            simple["minimum"] = -MAX_INTEGER
        else:
            simple[key] = checked(value, keyword=key, is_whole=is_whole)


def _read_counts(given: dict[str, Any], simple: dict[str, Any], path: str) -> None:
    for key in _COUNTS:
        if key not in given:
            continue
        value = exact(given[key]) if is_number(given[key]) else None
        if not isinstance(value, int) or value < 0:
            _refuse(path, f"{key} is {_shown(given[key])}. Give a whole number of 0 or more.")
        simple[key] = value


def _read_items(
    given: dict[str, Any], simple: dict[str, Any], draft: int, read: Callable[[Any, str], Node], path: str
) -> None:
    items, prefix = given.get("items"), given.get("prefixItems") if draft >= 2020 else None
    if isinstance(items, list):  # before draft 2020-12
        if prefix is not None:
            _refuse(path, "items is a list beside prefixItems. Use prefixItems for the list.")
        prefix, items = items, given.get("additionalItems")
    if prefix is not None and not isinstance(prefix, list):
        _refuse(path, f"prefixItems is {_shown(prefix)}. Give a list.")
    if prefix is not None:
        simple["prefixItems"] = [read(item, f"prefixItems/{i}") for i, item in enumerate(prefix)]
    if items is not None:
        simple["items"] = read(items, "items")


def _multiple(value: Any, path: str) -> int | float:
    if not is_number(value) or value <= 0:
        _refuse(path, f"multipleOf is {_shown(value)}. Give a number above 0.")
    return checked(exact(value), keyword="multipleOf", is_whole=False)


def _pattern(value: Any, path: str) -> str:
    if not isinstance(value, str):
        _refuse(path, f"pattern is {_shown(value)}. Give a text.")
    return translate_search(value)


def _data(value: Any, path: str) -> Any:
    """A value of const or enum."""
    if is_number(value):
        return checked(exact(value), keyword="const or enum", is_whole=True)
    if isinstance(value, list):
        return [_data(item, path) for item in value]
    if isinstance(value, dict):
        return {name: _data(item, path) for name, item in value.items()}
    return value


def _refuse_unimplemented(given: dict[str, Any], path: str) -> None:
    for key, neutral in _SAYS_NOTHING.items():
        if key not in given or given[key] in neutral:
            continue
        if key == "if" and "then" not in given and "else" not in given:
            continue
        _refuse(path, f"Unimplemented keys: [{key!r}]. Leave it out and check the output yourself.")


def _options(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        _refuse("x-guidance", f"{_shown(given)} is not an object of options.")
    for name, value in given.items():
        if value not in _OPTIONS.get(name, ()):
            _refuse(
                "x-guidance",
                f"{name}={_shown(value)} is not offered: outputs could fail the schema. Use one of "
                f"{', '.join(f'{known}={list(values)}' for known, values in _OPTIONS.items())}.",
            )
    return given


def _draft(name: Any, default: int) -> int:
    """The year of a draft, or its number up to draft 7."""
    found = re.search(r"draft-0([3467])|(2019)-09|(2020)-12", name) if isinstance(name, str) else None
    return int(next(filter(None, found.groups()))) if found else default


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}…"


def _refuse(path: str, reason: str) -> NoReturn:
    raise RequestError(f"structured_outputs: json, at {path}: {reason}")
