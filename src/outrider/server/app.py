"""The ASGI application: the endpoint of each path, and the response for each kind of error."""

import difflib
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from outrider.core.errors import RequestError
from outrider.core.pooling import CLASSIFY, EMBED, SCORE, TOKEN_CLASSIFY, TOKEN_EMBED
from outrider.core.version import VERSION
from outrider.server.activity import Noted
from outrider.server.answers import (
    ChatAnswer,
    CompletionAnswer,
    DetokenizeAnswer,
    HealthAnswer,
    ModelAnswer,
    ModelsAnswer,
    TokenizeAnswer,
    VersionAnswer,
)
from outrider.server.chat import ChatRequest, chat_completions
from outrider.server.completions import CompletionRequest, completions
from outrider.server.errors import APIError
from outrider.server.front import Front
from outrider.server.guards import GUARDED, OPEN, ApiKeys, BodyLimit
from outrider.server.messages.answers import AnthropicErrorAnswer, MessageAnswer, TokenCountAnswer
from outrider.server.messages.body import CountTokensRequest, MessagesRequest
from outrider.server.messages.endpoint import count_message_tokens, create_message
from outrider.server.offer import GENERATE, is_served, refusing, tasks_of
from outrider.server.openapi import Limits, Operation, document
from outrider.server.pooling.answers import ClassifyAnswer, EmbeddingAnswer, EncodeAnswer, RerankAnswer, ScoreAnswer
from outrider.server.pooling.classify import ClassifyRequest, classify
from outrider.server.pooling.embeddings import EmbeddingRequest, embeddings
from outrider.server.pooling.encode import PoolingRequest, pooling
from outrider.server.pooling.rerank import RerankRequest, rerank
from outrider.server.pooling.score import ScoreRequest, score
from outrider.server.request_log import RequestLog
from outrider.server.responses.answers import DeletedAnswer, ResponseAnswer
from outrider.server.responses.body import ResponseRequest
from outrider.server.responses.endpoint import create_response, delete_response, stored_response
from outrider.server.responses.store import ResponseStore
from outrider.server.static import page
from outrider.server.tokens import DetokenizeRequest, TokenizeRequest, detokenize, tokenize
from outrider.server.web_guards import HEADERS, HostGuard, OriginGuard, ResponseHeaders, hosts_allowed

_log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]


async def models(request: Request) -> Response:
    """Lists the served model, once for each of its names."""
    front: Front = request.app.state.front
    return JSONResponse({"object": "list", "data": [_model(front, name) for name in front.model_names]})


async def model(request: Request) -> Response:
    """Describes a served model."""
    front: Front = request.app.state.front
    name = request.path_params["model"]
    front.check_model(name)
    return JSONResponse(_model(front, name))


def _model(front: Front, name: str) -> dict[str, Any]:
    speculative = front.config.speculative
    return {
        "id": name,
        "object": "model",
        "created": front.started,
        "owned_by": "outrider",
        "root": front.config.model,
        "max_model_len": front.info.max_model_len,
        "tasks": list(tasks_of(front.info)),
        "speculative_config": None
        if speculative is None
        else {"method": speculative.method, "num_speculative_tokens": speculative.num_speculative_tokens},
    }


async def health(request: Request) -> Response:
    """Answers 200 while requests are served, 503 while the engine is dead or the server drains."""
    front: Front = request.app.state.front
    status = "ok" if front.is_healthy else "draining" if front.is_draining else "engine_dead"
    return JSONResponse({"status": status}, status_code=200 if front.is_healthy else 503)


async def metrics(request: Request) -> Response:
    """Answers with the metrics page."""
    front: Front = request.app.state.front
    body, kind = front.metrics.render()
    return Response(body, headers={"Content-Type": kind})


async def version(request: Request) -> Response:
    """Answers with the version of the package."""
    return JSONResponse({"version": VERSION})


OPERATIONS: dict[Operation, Endpoint] = {
    Operation(
        path="/v1/completions",
        method="POST",
        summary="Complete prompts.",
        body=CompletionRequest,
        answer=CompletionAnswer,
        can_stream=True,
        is_guarded=True,
        errors=(400, 404, 413, 415, 429, 503),
        tasks=(GENERATE,),
    ): completions,
    Operation(
        path="/v1/chat/completions",
        method="POST",
        summary="Answer a conversation.",
        body=ChatRequest,
        answer=ChatAnswer,
        can_stream=True,
        is_guarded=True,
        errors=(400, 404, 413, 415, 429, 503),
        tasks=(GENERATE,),
    ): chat_completions,
    Operation(
        path="/v1/responses",
        method="POST",
        summary="Answer a conversation, in the form of OpenAI's Responses API.",
        body=ResponseRequest,
        answer=ResponseAnswer,
        can_stream=True,
        is_guarded=True,
        errors=(400, 404, 413, 415, 429, 503),
        tasks=(GENERATE,),
    ): create_response,
    Operation(
        path="/v1/responses/{response_id}",
        method="GET",
        summary="Return a stored response.",
        answer=ResponseAnswer,
        is_guarded=True,
        errors=(400, 404),
        tasks=(GENERATE,),
    ): stored_response,
    Operation(
        path="/v1/responses/{response_id}",
        method="DELETE",
        summary="Delete a stored response.",
        answer=DeletedAnswer,
        is_guarded=True,
        errors=(404,),
        tasks=(GENERATE,),
    ): delete_response,
    Operation(
        path="/v1/messages",
        method="POST",
        summary="Answer a conversation, in the form of Anthropic's Messages API.",
        body=MessagesRequest,
        answer=MessageAnswer,
        error=AnthropicErrorAnswer,
        can_stream=True,
        is_guarded=True,
        errors=(400, 404, 413, 415, 429, 503),
        tasks=(GENERATE,),
    ): create_message,
    Operation(
        path="/v1/messages/count_tokens",
        method="POST",
        summary="Count the tokens of a conversation, in the form of Anthropic's Messages API.",
        body=CountTokensRequest,
        answer=TokenCountAnswer,
        error=AnthropicErrorAnswer,
        is_guarded=True,
        errors=(400, 404, 413, 415),
        tasks=(GENERATE,),
    ): count_message_tokens,
    Operation(
        path="/v1/embeddings",
        method="POST",
        summary="Turn texts into vectors.",
        body=EmbeddingRequest,
        answer=EmbeddingAnswer,
        is_guarded=True,
        errors=(400, 404, 413, 415, 429, 503),
        tasks=(EMBED,),
    ): embeddings,
    Operation(
        path="/classify",
        method="POST",
        summary="Give the value of each label for texts.",
        body=ClassifyRequest,
        answer=ClassifyAnswer,
        is_guarded=True,
        errors=(400, 404, 413, 415, 429, 503),
        tasks=(CLASSIFY,),
    ): classify,
    Operation(
        path="/pooling",
        method="POST",
        summary="Give the numbers of a task for texts, or for each of their tokens.",
        body=PoolingRequest,
        answer=EncodeAnswer,
        is_guarded=True,
        errors=(400, 404, 413, 415, 429, 503),
        tasks=(EMBED, CLASSIFY, TOKEN_EMBED, TOKEN_CLASSIFY),
    ): pooling,
    **{
        Operation(
            path=path,
            method="POST",
            summary="Score pairs of texts.",
            body=ScoreRequest,
            answer=ScoreAnswer,
            is_guarded=True,
            errors=(400, 404, 413, 415, 429, 503),
            tasks=(SCORE,),
        ): score
        for path in ("/score", "/v1/score")
    },
    **{
        Operation(
            path=path,
            method="POST",
            summary="Order documents by their relevance to a query.",
            body=RerankRequest,
            answer=RerankAnswer,
            is_guarded=True,
            errors=(400, 404, 413, 415, 429, 503),
            tasks=(SCORE,),
        ): rerank
        for path in ("/rerank", "/v1/rerank", "/v2/rerank")
    },
    Operation(
        path="/v1/models",
        method="GET",
        summary="List the served model, under each of its names.",
        answer=ModelsAnswer,
        is_guarded=True,
    ): models,
    Operation(
        path="/v1/models/{model}",
        method="GET",
        summary="Describe a served model.",
        answer=ModelAnswer,
        is_guarded=True,
        errors=(404,),
    ): model,
    Operation(
        path="/tokenize",
        method="POST",
        summary="Convert a text or a conversation to token ids.",
        body=TokenizeRequest,
        answer=TokenizeAnswer,
        is_guarded=True,
        errors=(400, 404, 413, 415),
    ): tokenize,
    Operation(
        path="/detokenize",
        method="POST",
        summary="Convert token ids to text.",
        body=DetokenizeRequest,
        answer=DetokenizeAnswer,
        is_guarded=True,
        errors=(400, 404, 413, 415),
    ): detokenize,
    Operation(
        path="/health", method="GET", summary="Say whether requests are served.", answer=HealthAnswer, errors=(503,)
    ): health,
    Operation(path="/version", method="GET", summary="The version of Outrider.", answer=VersionAnswer): version,
    Operation(path="/metrics", method="GET", summary="Metrics in Prometheus' text format.", answer=None): metrics,
}
"""Every endpoint: what the OpenAPI document says about it, and the function that serves it."""


def build_app(front: Front) -> Starlette:
    """Builds the application over a front that has started."""
    options = front.options
    limits = Limits(
        model_names=front.model_names,
        vocab_size=front.info.vocab_size,
        max_model_len=front.info.max_model_len,
        needs_key=bool(options.api_keys),
        has_priorities=options.scheduling_policy == "priority",
        pooling=front.info.pooling,
    )
    guards_all = options.guards_all_paths
    operations = [
        replace(entry, is_guarded=True) if guards_all and entry.path not in OPEN else entry
        for entry in OPERATIONS
        if is_served(entry, front.info)
    ]
    published = document(operations, version=VERSION, limits=limits)

    async def openapi(request: Request) -> Response:
        """Answers with the OpenAPI document."""
        return JSONResponse(published)

    hosts = hosts_allowed(options.host, has_keys=bool(options.api_keys), allowed=options.allowed_hosts)
    middleware = [Middleware(BodyLimit, max_bytes=options.max_body_bytes)]  # the last one is called last
    if options.api_keys:
        prefixes = ("/",) if options.guards_all_paths else GUARDED
        middleware.insert(0, Middleware(ApiKeys, keys=options.api_keys, prefixes=prefixes))
    middleware.insert(0, Middleware(OriginGuard, origins=options.allowed_origins))
    if hosts:
        middleware.insert(0, Middleware(HostGuard, hosts=hosts))
    middleware.insert(0, Middleware(Noted, activity=front.activity))
    if options.logs_requests:
        middleware.insert(0, Middleware(RequestLog, prefixes=GUARDED))
    middleware.insert(0, Middleware(ResponseHeaders))
    if options.allowed_origins:
        middleware.insert(
            0,
            Middleware(
                CORSMiddleware,
                allow_origins=list(options.allowed_origins),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["authorization", "content-type", "x-api-key", "anthropic-version"],
            ),
        )
    app = Starlette(
        routes=[
            *(
                Route(
                    entry.path.replace("{model}", "{model:path}"),
                    endpoint if is_served(entry, front.info) else refusing(entry, front),
                    methods=[entry.method],
                )
                for entry, endpoint in OPERATIONS.items()
            ),
            Route("/openapi.json", openapi),
            Route("/", page),
            Route("/page/{name}", page),
        ],
        middleware=middleware,
        exception_handlers={
            APIError: _api_error,
            RequestError: _request_error,
            HTTPException: _http_error,
            Exception: _server_error,
        },
    )
    app.state.front = front
    app.state.responses = ResponseStore()
    return app


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, APIError)
    return error.response(request.url.path)


async def _request_error(request: Request, error: Exception) -> Response:
    return APIError(str(error)).response(request.url.path)


async def _server_error(request: Request, error: Exception) -> Response:
    """Answers 500 for a bug in the server. The log has its traceback, by uvicorn; the caller gets nothing of it. No
    middleware sees this response."""
    number = secrets.token_hex(4)
    _log.error("internal error %s in %s %s", number, request.method, request.url.path)
    message = f"internal error {number}. Please report it, with what the server's log says about {number}."
    return APIError(message, status=500, kind="server_error", headers=HEADERS).response(request.url.path)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answers for unknown paths and methods."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    message = {
        404: _unknown_path(path),
        405: f"{request.method} is not allowed for {path}. See /openapi.json for its methods.",
    }.get(error.status_code, error.detail)
    return APIError(message, status=error.status_code, headers=error.headers).response(path)


_INSTEAD = {
    "/v2/embed": "Use /v1/embeddings.",
    "/v1/embed": "Use /v1/embeddings.",
    "/generative_scoring": "Ask for log-probabilities: logprobs, with logprob_token_ids, of /v1/completions.",
    "/v1/complete": "Use /v1/completions.",
    "/v1/responses/compact": "Send the items that the model shall see to /v1/responses.",
    "/v1/responses/input_tokens": "/v1/messages/count_tokens and /tokenize count tokens.",
    "/v1/messages/batches": "Send each message to /v1/messages; the engine batches them.",
    "/v1/batches": "Send each request by itself; the engine batches them.",
}
"""Paths of other servers, and what to use."""


def _unknown_path(path: str) -> str:
    """A message for a path that does not exist, which names one that does."""
    if path in _INSTEAD:
        return f"{path} is not offered. {_INSTEAD[path]}"
    if path.startswith("/v1/responses/"):
        return f"{path} is not offered. A stored response can be read (GET /v1/responses/ID) and deleted (DELETE)."
    near = difflib.get_close_matches(path, [entry.path for entry in OPERATIONS], n=1, cutoff=0.75)
    hint = f"Did you mean {near[0]}?" if near else "Use /v1/chat/completions, /v1/responses or /v1/messages to talk."
    return f"No such path: {path}. {hint} /openapi.json lists all paths."
