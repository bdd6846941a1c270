"""Schemas of answers that must call tools: each tool keeps its own references."""

import pytest

from outrider import RequestError
from outrider.server.call_schema import list_schema


def test_definitions_of_functions_are_shared_or_refused() -> None:
    def tool(name: str, kind: str) -> dict[str, object]:
        parameters = {"type": "object", "properties": {"x": {"$ref": "#/$defs/X"}}, "$defs": {"X": {"type": kind}}}
        return {"name": name, "parameters": parameters}

    schema = list_schema([tool("a", "string"), tool("b", "string")], is_parallel=False)
    assert schema["$defs"] == {"X": {"type": "string"}} and schema["maxItems"] == 1
    with pytest.raises(RequestError, match=r"different \$defs named 'X'"):
        list_schema([tool("a", "string"), tool("b", "number")], is_parallel=True)
