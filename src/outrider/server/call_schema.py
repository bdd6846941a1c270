"""The JSON schema of an answer that must call tools: a list of calls, each with its tool's own parameters.

A reference is relative to its document. So each tool's schema is read on its own, and its definitions get names that no
other tool has.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from outrider.engine.languages.json_schema import Node, read_schema


def list_schema(tools: Sequence[Mapping[str, Any]], *, is_parallel: bool) -> dict[str, Any]:
    """A JSON schema for a list of calls of `tools` ({"name", "parameters"}). Raises RequestError."""
    definitions: dict[str, Node] = {}
    calls = []
    for index, tool in enumerate(tools):
        parameters = read_schema(tool.get("parameters") or {"type": "object"}, prefix=f"{index}.")
        definitions |= parameters.definitions
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool["name"]}, "parameters": parameters.root},
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
