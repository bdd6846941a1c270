"""Base of all request bodies: a field that is not known is refused by name, unless its value asks for nothing.

Clients send fields of other servers with null or empty values; dropping those changes no answer.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, GetJsonSchemaHandler, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

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


class Strict(BaseModel):
    """Refuses unknown fields that ask for something, values of another type, and NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_what_asks_for_nothing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        dropped = {key for key in data.keys() - _known_names(cls) if asks_for_nothing(data[key])}
        return {key: value for key, value in data.items() if key not in dropped} if dropped else data

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
