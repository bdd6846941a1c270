"""The OpenAPI document, made from the types of the endpoints and the limits of the served model.

Rules that a schema cannot express (fields that exclude each other, valid grammars) are in the descriptions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from outrider.core.pooling import PoolingAbilities
from outrider.server.answers import ErrorAnswer

Schema = dict[str, Any]

RULES = (
    "min_tokens is at most max_tokens.",
    "Log-probabilities of a prompt (prompt_logprobs, echo with logprobs) are not streamed.",
    "Options of a stream need stream; top_logprobs above 0 needs logprobs; a tool_choice that forces a call needs "
    "tools.",
    "max_tokens and max_completion_tokens are equal if both are given. At most one of response_format, "
    "structured_outputs and a tool_choice that forces a call is given; structured_outputs has exactly one constraint.",
    "documents and reasoning_effort need a chat template that uses them.",
    "Each of these three excludes ignore_eos, min_tokens, bad_words and allowed_token_ids.",
    "Schemas, expressions and grammars can be satisfied; unknown keywords of JSON schema are refused.",
    "A prompt leaves space for one token in the model's context, unless truncate_prompt_tokens shortens it.",
    "allowed_token_ids, bad_words and min_tokens leave at least one token to choose; a bad word has at most 16 tokens.",
    "If echo with logprobs and prompt_logprobs are both given, their numbers are equal.",
    "tool_choice auto (the default with tools) needs a server with --tool-call-parser and a chat template that uses "
    "tools.",
    "chat_template needs a server with --trust-request-chat-template; add_generation_prompt and "
    "continue_final_message are not both true; the template can render the messages.",
    "/tokenize takes a prompt or messages, not both.",
    "previous_response_id and item_reference name what the server has stored; arguments of a function_call are a JSON "
    "object; message.output_text.logprobs cannot be combined with tool calls.",
    "The messages of /v1/messages do not end with a tool_use block.",
)
POOLING_RULES = (
    "Either input or messages is given. A text has at least one token, and as many as the model takes, unless "
    "truncate_prompt_tokens shortens it.",
    "add_generation_prompt, continue_final_message, chat_template and chat_template_kwargs need messages, which the "
    "template can render; chat_template needs a server with --trust-request-chat-template.",
    "normalize and use_activation are two names of one thing: if both are given, they are equal. normalize and "
    "dimensions are for vectors.",
    "Queries and documents are given under one pair of names; there is one query, or as many as documents.",
)
"""Rules that a valid body satisfies beyond its schema, where the model generates and where it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of the served model that the schema contains."""

    model_names: tuple[str, ...]
    vocab_size: int
    max_model_len: int
    needs_key: bool
    has_priorities: bool
    """Callers may set the priority of their requests."""
    pooling: PoolingAbilities | None = None
    """Tasks and sizes of a pooling model; None: the model generates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One endpoint as the document describes it."""

    path: str
    method: str
    summary: str
    answer: type[BaseModel] | None
    """Type of the response; None for plain text."""
    body: type[BaseModel] | None = None
    error: type[BaseModel] = ErrorAnswer
    can_stream: bool = False
    is_guarded: bool = False
    errors: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    """The endpoint is for models that do one of these tasks; (): for all."""


_ERRORS = {
    400: "The body or a field is refused; the message names the field, the value and the remedy.",
    401: "The API key is missing or wrong.",
    404: "No model of this name is served, or no response of this id is stored.",
    413: "The body is too long.",
    415: "The body is not JSON.",
    429: "The server is full; Retry-After says when to try again.",
    503: "The engine is not running, or the server is shutting down.",
}


def document(operations: Sequence[Operation], *, version: str, limits: Limits) -> Schema:
    """The whole document, in OpenAPI 3.1."""
    bodies = [operation.body for operation in operations if operation.body]
    answers: list[type[BaseModel]] = [operation.answer for operation in operations if operation.answer]
    models = [(model, "validation") for model in bodies] + [(model, "serialization") for model in answers]
    errors = dict.fromkeys((operation.error, "serialization") for operation in operations)
    references, definitions = models_json_schema(
        [*dict.fromkeys(models), *errors],  # type: ignore[list-item]
        ref_template="#/components/schemas/{model}",
    )
    schemas = definitions["$defs"]
    _set_limits(schemas, limits)
    for model in bodies:
        rules = RULES if limits.pooling is None else POOLING_RULES
        schemas[model.__name__]["description"] += " Rules: " + " ".join(rules)
    paths: Schema = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, references, limits)
    components: Schema = {"schemas": schemas}
    if limits.needs_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Outrider",
            "version": version,
            "description": "OpenAI-compatible endpoints over an engine whose speculative decoding is exact.",
        },
        "paths": paths,
        "components": components,
    }


_EVENTS = "Server-sent events. The data of each is a JSON chunk; the last is [DONE]."


def _operation(operation: Operation, references: Any, limits: Limits) -> Schema:
    content: Schema = {"text/plain": {"schema": {"type": "string"}}}
    if operation.answer is not None:
        content = {"application/json": {"schema": references[operation.answer, "serialization"]}}
    if operation.can_stream:
        content["text/event-stream"] = {"schema": {"description": _EVENTS}}
    responses: Schema = {"200": {"description": "The answer.", "content": content}}
    for status in (*operation.errors, *((401,) if operation.is_guarded and limits.needs_key else ())):
        error: Schema = {
            "description": _ERRORS[status],
            "content": {"application/json": {"schema": references[operation.error, "serialization"]}},
        }
        if operation.path == "/health":
            error["content"] = content
        if status == 429:
            error["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}}
        responses[str(status)] = error
    found: Schema = {"summary": operation.summary, "responses": responses}
    for name in re.findall("{(.+?)}", operation.path):
        schema: Schema = {"type": "string"} | ({"enum": [*limits.model_names]} if name == "model" else {})
        found["parameters"] = [{"name": name, "in": "path", "required": True, "schema": schema}]
    if operation.body is not None:
        content = {"application/json": {"schema": references[operation.body, "validation"]}}
        found["requestBody"] = {"required": True, "content": content}
    if operation.is_guarded and limits.needs_key:
        found["security"] = [{"key": []}]
    return found


def _set_limits(node: Any, limits: Limits) -> None:
    """Replaces the marks in `node` (x-limit) by the limits of the served model, in place."""
    if isinstance(node, list):
        for entry in node:
            _set_limits(entry, limits)
    if not isinstance(node, dict):
        return
    mark = node.pop("x-limit", None)
    if mark == "vocabulary":
        node["maximum"] = limits.vocab_size - 1
    elif mark == "vocabulary-keys":
        (values,) = node.pop("patternProperties").values()
        node["propertyNames"] = {"pattern": f"^{up_to(limits.vocab_size - 1)}$"}
        node["additionalProperties"] = values
    elif mark == "context":
        node["maxItems"] = limits.max_model_len - 1
    elif mark == "whole-context":
        node["maxItems"] = limits.max_model_len
    elif mark == "part-of-context":
        node["maximum"] = limits.max_model_len - 1
    elif mark == "dimensions" and limits.pooling is not None:
        node.update(_dimensions(limits.pooling))
    elif mark == "task" and limits.pooling is not None:
        node["enum"] = [task for task in node["enum"] if task in limits.pooling.tasks]
    elif mark == "priority" and not limits.has_priorities:
        node["minimum"] = node["maximum"] = 0
    elif mark == "model":
        node["enum"] = [*limits.model_names]
    for value in node.values():
        _set_limits(value, limits)


def _dimensions(abilities: PoolingAbilities) -> Schema:
    """The values that `dimensions` may have."""
    size, allowed = abilities.embedding_size, abilities.matryoshka_dimensions
    if size is None or allowed == ():
        return {"maximum": size or 1}
    return {"enum": sorted({size, *(allowed or ())})}


def up_to(most: int) -> str:
    """A regular expression for the decimal numbers from 0 to `most`."""
    digits = str(most)
    parts = [re.escape(digits)]
    for place, digit in enumerate(digits):
        low = 1 if place == 0 and len(digits) > 1 else 0
        if int(digit) > low:
            parts.append(digits[:place] + f"[{low}-{int(digit) - 1}]" + "[0-9]" * (len(digits) - place - 1))
    if len(digits) > 1:
        parts.append("[0-9]")
    if len(digits) > 2:
        parts.append(f"[1-9][0-9]{{1,{len(digits) - 2}}}")
    return "(?:" + "|".join(parts) + ")"
