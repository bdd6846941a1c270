"""Judges a JSON text by jsonschema, with exact numbers and formats, also where a schema refers to itself in place.

jsonschema runs around such a loop forever. It adds nothing: a value must meet the schema by a way that ends, so behind
the loop is `false`.
"""

import json
import re
import warnings
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import jsonschema
from jsonschema import Draft202012Validator

_APPLIED_IN_PLACE = ("allOf", "anyOf", "oneOf")
_PARTS = ("items", "additionalProperties")
_LISTS = ("prefixItems", *_APPLIED_IN_PLACE)
_MAPS = ("properties", "patternProperties")


def is_met(schema: dict[str, Any], value: Any, *, judge: Any = None) -> bool:
    """True if a value, of `loads` or `exact`, meets the schema."""
    validator = (judge or Python)(exact(_unlooped(schema)), format_checker=Draft202012Validator.FORMAT_CHECKER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes with [ in a pattern
        try:
            validator.validate(value)
        except jsonschema.ValidationError:
            return False
    return True


def _multiple_of(validator: Any, step: Any, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    """Exact for numbers of any size, such as 1e999."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return
    _, digits, exponent = Decimal(value).as_tuple()
    _, step_digits, step_exponent = Decimal(step).as_tuple()
    assert isinstance(exponent, int) and isinstance(step_exponent, int)
    one, other = (int("".join(map(str, some))) for some in (digits, step_digits))
    shift = exponent - step_exponent
    if shift >= 0:
        is_multiple = one * pow(10, shift, other) % other == 0
    else:
        is_multiple = one == 0 or (-shift < len(digits) and one % (other * 10**-shift) == 0)
    if not is_multiple:
        yield jsonschema.ValidationError(f"{value} is not a multiple of {step}")


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    """A pattern as ECMA-262 reads it: letters of ASCII, and an end that is the end."""
    if isinstance(value, str) and not re.search(re.sub(r"\$(?=$|\||\))", r"\\Z", pattern), value, re.ASCII):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


_FORMATS = {"date-time": r"\d{4}-\d\d-\d\d[Tt]\d\d:", "time": r"\d\d:\d\d:\d\d"}
"""Formats that jsonschema checks with other packages only, in short."""


def _format(validator: Any, name: str, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(value, str) and not re.match(_FORMATS.get(name, ""), value):
        yield jsonschema.ValidationError(f"{value!r} is not a {name}")
    yield from Draft202012Validator.VALIDATORS["format"](validator, name, value, schema) or ()


Python = jsonschema.validators.extend(Draft202012Validator, {"multipleOf": _multiple_of})
"""A judge with exact numbers."""
Ecma = jsonschema.validators.extend(Python, {"pattern": _pattern, "format": _format})
"""A judge that reads patterns as ECMA-262 does, and knows more formats."""


def loads(text: str) -> Any:
    """JSON with every digit of its numbers."""
    return json.loads(text, parse_float=Decimal)


def exact(value: Any) -> Any:
    """A value of floats with decimals in their place."""
    return loads(json.dumps(value))


def _unlooped(schema: dict[str, Any]) -> dict[str, Any]:
    definitions = dict(schema.get("$defs", {})) | {"root": {k: v for k, v in schema.items() if k != "$defs"}}
    return {
        "$ref": "#/$defs/root",
        "$defs": {name: _inlined(part, {name}, definitions) for name, part in definitions.items()},
    }


def _inlined(node: Any, seen: set[str], definitions: dict[str, Any]) -> Any:
    """The node with the definitions that it refers to in its own place."""
    if not isinstance(node, dict):
        return node
    found = _kept(node)
    for key in _APPLIED_IN_PLACE:
        if key in node:
            found[key] = [_inlined(part, seen, definitions) for part in node[key]]
    if "$ref" in node:
        name = _name(found.pop("$ref"))
        target = False if name in seen else _inlined(definitions[name], seen | {name}, definitions)
        found["allOf"] = [*found.get("allOf", ()), target]
    return found


def _kept(node: Any) -> Any:
    """A part in a place of its own; the definitions that it refers to are without loops already."""
    if not isinstance(node, dict):
        return node
    found = dict(node)
    for key in _PARTS:
        if key in node:
            found[key] = _kept(node[key])
    for key in _LISTS:
        if key in node:
            found[key] = [_kept(part) for part in node[key]]
    for key in _MAPS:
        if key in node:
            found[key] = {name: _kept(part) for name, part in node[key].items()}
    if "$ref" in node:
        found["$ref"] = f"#/$defs/{_name(node['$ref'])}"
    return found


def _name(reference: str) -> str:
    return "root" if reference == "#" else reference.removeprefix("#/$defs/")
