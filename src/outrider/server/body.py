"""Parses a request body into a pydantic model, or raises an error that names the field, the value and the remedy."""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from outrider.server.body_size import SMALL, check_counts
from outrider.server.errors import APIError, refused
from outrider.server.front import Front
from outrider.server.not_offered import NOT_IN_MESSAGES, NOT_OFFERED

Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")
_MAX_SHOWN = 80
"""Maximum number of characters of a wrong value that an error repeats."""
_MAX_LINES = 8
"""Maximum number of wrong fields that an error names."""
_MAX_READ = 64
"""Maximum number of wrong fields that are compared with each other."""


async def read_body(request: Request, model: type[Model]) -> Model:
    """Reads and checks the body. Raises APIError: 400, 413 if it is too long (`guards.py`), 415 if it is not JSON."""
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise APIError(f"content-type {kind!r} is not JSON. Send application/json.", status=415)
    try:
        data = await request.body()
    except ClientDisconnect:
        raise refused("the connection was closed before the body was complete") from None
    if len(data) <= SMALL:
        return parsed(data, model)
    front: Front = request.app.state.front
    return await front.aside(lambda: parsed(data, model), request)


def parsed(data: bytes, model: type[Model]) -> Model:
    """The body in `data`. Takes time that grows with its length. Raises APIError."""
    check_counts(data)
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise explain(error, model) from error


async def built(request: Request, build: Callable[[], Result]) -> Result:
    """Returns `build()`, which reads a body; called beside the event loop if the body is long."""
    if len(await request.body()) <= SMALL:
        return build()
    front: Front = request.app.state.front
    return await front.aside(build, request)


def checked(model: type[Model], fields: Mapping[str, Any]) -> Model:
    """The body that a caller's fields stand for in another endpoint's form. Raises APIError as `read_body` does."""
    try:
        return model(**fields)
    except ValidationError as error:
        raise explain(error, model) from error


def explain(error: ValidationError, model: type[BaseModel]) -> APIError:
    """An error with one sentence for each of the first wrong fields; its `param` is the first field."""
    found = _of_types_that_fit(error.errors(include_url=False, include_context=True))
    # for a field with several types, an error about a part of it says more than the error about the whole
    paths = [_path(entry["loc"]) for entry in found[:_MAX_READ]]
    wholes = {path for path in paths if any(other.startswith((f"{path}[", f"{path}.")) for other in paths)}
    found = [entry for entry, path in zip(found, paths, strict=False) if path not in wholes] + found[_MAX_READ:]
    lines = dict.fromkeys(_line(entry, model) for entry in found[:_MAX_LINES])
    more = [f"{len(found) - _MAX_LINES} more fields are wrong."] if len(found) > _MAX_LINES else []
    return refused(" ".join([*lines, *more]), param=_path(found[0]["loc"])[:_MAX_SHOWN] or None)


def _of_types_that_fit(found: list[Any]) -> list[Any]:
    """Errors without those of a field's other types, if the value has one of its types and is beyond a limit: a list
    that is too long is not a text, but that is not what is wrong with it."""
    kinds: dict[tuple[Any, ...], dict[str, set[str]]] = {}
    for entry in found[:_MAX_READ]:
        field, branch = _branch(entry["loc"])
        kinds.setdefault(field, {}).setdefault(branch, set()).add(entry["type"])
    fitting = {
        (field, branch) for field, branches in kinds.items() for branch, names in branches.items() if names <= _LIMITS
    }
    fields = {field for field, _ in fitting}
    return [entry for entry in found if (at := _branch(entry["loc"]))[0] not in fields or at in fitting]


def _branch(loc: tuple[int | str, ...]) -> tuple[tuple[int | str, ...], str]:
    """The field of an error that is about one type of several, and the name of this type; "" if it has one type."""
    for place, part in enumerate(loc):
        if isinstance(part, str) and place > 0 and (not part.isidentifier() or _is_branch(part)):
            return loc[:place], part
    return loc, ""


_LIMITS = {
    "too_long", "too_short", "string_too_long", "string_too_short", "string_pattern_mismatch", "greater_than",
    "greater_than_equal", "less_than", "less_than_equal",
}  # fmt: skip
"""Kinds of errors about a value of the right type."""


def _line(entry: Any, model: type[BaseModel]) -> str:
    path, kind = _path(entry["loc"]), entry["type"]
    if kind == "json_invalid":
        return f"the body is not valid JSON: {entry['ctx']['error']}. Send a JSON object."
    if kind == "extra_forbidden":
        return _unknown(_path(entry["loc"][:-1]), str(entry["loc"][-1]), model)
    if kind == "missing":
        return f"{path} is required and missing. Add it."
    shown = _shown(entry["input"])
    if instead := _instead(path, model):
        return f"{path}={shown} is not offered. {instead}"
    if kind == "literal_error" and path.startswith("messages[") and path.endswith("].type") and ".content[" in path:
        return f"{path}={shown} is not offered. Only text is supported."
    name = path or "the body"
    return f"{name}={shown} is refused: {_JSON_TYPES.get(kind, entry['msg'])}."


_JSON_TYPES = {
    "model_type": "Input should be an object",
    "dict_type": "Input should be an object",
    "list_type": "Input should be a valid array",
}
"""Messages about types, by kind of error, in JSON's words."""


def _unknown(within: str, name: str, model: type[BaseModel]) -> str:
    shown = name if name.isidentifier() and len(name) <= _MAX_SHOWN else _shown(name)
    path = f"{within}.{shown}" if within else shown
    if instead := _instead(path, model):
        return f"{path} is not offered. {instead}"
    known = [field.alias or key for key, field in model.model_fields.items()]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]}?" if near and not within else "/openapi.json lists the known fields."
    return f"{path} is not a known field. {hint}"


def _instead(path: str, model: type[BaseModel]) -> str | None:
    """The remedy for a field that is not offered; None for other fields. A body may have a table of its own."""
    if path.startswith("messages["):
        return NOT_IN_MESSAGES.get(path.partition("].")[2])
    not_offered: Mapping[str, str] = getattr(model, "not_offered", NOT_OFFERED)
    return not_offered.get(re.split(r"[\[.]", path)[0])


def _path(loc: tuple[int | str, ...]) -> str:
    """A field's path as a caller would write it: stop[0], stream_options.include_usage. Leaves out union branches."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif text.endswith("]") and part in _ROLES:
            continue
        elif part.isidentifier() and not (text and _is_branch(part)):
            text += f".{part}" if text else part
    return text


def _is_branch(part: str) -> bool:
    return part in _BRANCHES or part[:1].isupper()


_ROLES = {"system", "developer", "user", "assistant", "tool", "tool_use", "tool_result", "thinking"}
"""Names of the branches of unions of messages and of their blocks."""
_BRANCHES = {"str", "int", "float", "bool", "list", "dict", "text", "json_object_format", "json_schema_format"}


def _shown(value: Any) -> str:
    """The beginning of a value as JSON; a long value is not written to its end."""
    text = ""
    for piece in _encoder.iterencode(_cut(value)):
        text += piece[: _MAX_SHOWN + 1]
        if len(text) > _MAX_SHOWN:
            break
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


_encoder = json.JSONEncoder(ensure_ascii=False, default=str)


def _cut(value: Any) -> Any:
    return value[:_MAX_SHOWN] if isinstance(value, str) else value
