"""The JSON schema of an answer that must call tools: a list of calls, each with its tool's own parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from outrider.core.errors import RequestError


def list_schema(tools: Sequence[Mapping[str, Any]], *, is_parallel: bool) -> dict[str, Any]:
    """A JSON schema for a list of calls of `tools` ({"name", "parameters"}). Raises RequestError."""
    definitions: dict[str, Any] = {}
    calls = []
    for tool in tools:
        parameters = dict(tool.get("parameters") or {"type": "object"})
        for name, value in parameters.pop("$defs", {}).items():
            if definitions.setdefault(name, value) != value:
                raise RequestError(f"tools: two functions have different $defs named {name!r}. Rename one.")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool["name"]}, "parameters": parameters},
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
        )
    schema: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"anyOf": calls}}
    if not is_parallel:
        schema["maxItems"] = 1
    if definitions:
        schema["$defs"] = definitions
    return schema
