"""The ASGI application: which path leads where, and what every error becomes."""

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from outrider.core.errors import RequestError
from outrider.server.chat import chat_completions
from outrider.server.completions import completions
from outrider.server.errors import APIError
from outrider.server.front import Front
from outrider.server.guards import ApiKeys, BodyLimit
from outrider.server.static import page


async def models(request: Request) -> Response:
    """The served model, once for each of its names."""
    front: Front = request.app.state.front
    return JSONResponse({"object": "list", "data": [_model(front, name) for name in front.model_names]})


def _model(front: Front, name: str) -> dict[str, Any]:
    speculative = front.config.speculative
    return {
        "id": name,
        "object": "model",
        "created": front.started,
        "owned_by": "outrider",
        "root": front.config.model,
        "max_model_len": front.info.max_model_len,
        "speculative_config": None
        if speculative is None
        else {"method": speculative.method, "num_speculative_tokens": speculative.num_speculative_tokens},
    }


async def health(request: Request) -> Response:
    """200 while requests are served, 503 while the engine is gone or the server drains."""
    front: Front = request.app.state.front
    status = "ok" if front.is_healthy else "draining" if front.is_draining else "engine is gone"
    return JSONResponse({"status": status}, status_code=200 if front.is_healthy else 503)


async def metrics(request: Request) -> Response:
    """Prometheus' text."""
    front: Front = request.app.state.front
    body, kind = front.metrics.render()
    return Response(body, headers={"Content-Type": kind})


def build_app(front: Front) -> Starlette:
    """The application over a front that has started."""
    options = front.options
    middleware = [Middleware(BodyLimit, max_bytes=options.max_body_bytes)]
    if options.api_keys:
        middleware.insert(0, Middleware(ApiKeys, keys=options.api_keys))
    if options.allowed_origins:
        middleware.insert(
            0,
            Middleware(
                CORSMiddleware,
                allow_origins=list(options.allowed_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["authorization", "content-type"],
            ),
        )
    app = Starlette(
        routes=[
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
            Route("/metrics", metrics),
            Route("/", page),
            Route("/page/{name}", page),
        ],
        middleware=middleware,
        exception_handlers={APIError: _api_error, RequestError: _request_error, HTTPException: _http_error},
    )
    app.state.front = front
    return app


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, APIError)
    return error.response()


async def _request_error(request: Request, error: Exception) -> Response:
    return APIError(str(error)).response()


async def _http_error(request: Request, error: Exception) -> Response:
    """Paths and methods that are not there."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    message = {
        404: f"{path} is not here. /openapi.json lists what is.",
        405: f"{request.method} is not for {path}. /openapi.json says which method is.",
    }.get(error.status_code, error.detail)
    return APIError(message, status=error.status_code, headers=error.headers).response()
