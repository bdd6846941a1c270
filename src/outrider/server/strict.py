"""Base of all request bodies: a field that is not known is refused by name, unless its value asks for nothing.

Clients send fields of other servers with null or empty values; dropping those changes no answer.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

_MAX_UNKNOWN = 64
"""Maximum number of unknown fields of an object: each is looked at, and clients of other servers send few."""
_EMPTY: dict[str, Any] = {"enum": [None, "", [], {}]}
NOTHING: dict[str, Any] = {
    "anyOf": [
        _EMPTY,
        {"type": "array", "items": _EMPTY},
        {"type": "object", "additionalProperties": _EMPTY},
    ]
}
"""JSON schema of the values for which `asks_for_nothing` is true."""


def asks_for_nothing(value: Any) -> bool:
    """True for null, "", [], {}, and for a list or an object that holds only these."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return all(_is_empty(entry) for entry in value)
    return _is_empty(value)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, Mapping)) and not value)


def _must_be_false(value: bool) -> bool:
    if value:
        raise PydanticCustomError("only_false", "Input should be false")
    return value


def _must_be_true(value: bool) -> bool:
    if not value:
        raise PydanticCustomError("only_true", "Input should be true")
    return value


# Literal[False] would take 0 and 0.0, which are equal to it
OnlyFalse = Annotated[bool, AfterValidator(_must_be_false), WithJsonSchema({"const": False})]
OnlyTrue = Annotated[bool, AfterValidator(_must_be_true), WithJsonSchema({"const": True})]


def _stop_at_the_first_error(schema: Any) -> None:
    """Makes each list and dict of a schema end at its first wrong entry: a million would make a million errors."""
    if isinstance(schema, dict):
        if schema.get("type") in ("list", "dict"):
            schema["fail_fast"] = True
        for part in schema.values():
            _stop_at_the_first_error(part)
    elif isinstance(schema, (list, tuple)):
        for part in schema:
            _stop_at_the_first_error(part)


class Strict(BaseModel):
    """Refuses unknown fields that ask for something, values of another type, and NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_what_asks_for_nothing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        unknown = data.keys() - _known_names(cls)
        if len(unknown) > _MAX_UNKNOWN:
            raise PydanticCustomError("too_many_unknown", "{count} fields are not known", {"count": len(unknown)})
        dropped = {key for key in unknown if asks_for_nothing(data[key])}
        return {key: value for key, value in data.items() if key not in dropped} if dropped else data

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _stop_at_the_first_error(schema)
        return schema

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        handler.resolve_ref_schema(schema)["additionalProperties"] = NOTHING
        return schema


@cache
def _known_names(model: type[BaseModel]) -> frozenset[str]:
    """Names and aliases of a model's fields."""
    fields = model.model_fields
    return frozenset(fields).union(field.alias for field in fields.values() if field.alias is not None)
