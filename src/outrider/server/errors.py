"""Errors in the form that a path's clients expect: OpenAI's, {"error": {"message", "type", "param", "code"}}, or
Anthropic's below /v1/messages, {"type": "error", "error": {"type", "message"}}.

A message names the field, the value and the remedy. Knows HTTP status codes; runs nothing.
"""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

MESSAGES_PATH = "/v1/messages"
"""The endpoint whose errors have Anthropic's form, and those below it."""

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}
"""Anthropic's name for the error of a status; the others are "invalid_request_error"."""


class APIError(Exception):
    """An error response in place of an answer."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    def anthropic_body(self) -> dict[str, Any]:
        """The JSON body in Anthropic's form."""
        kind = _ANTHROPIC_TYPES.get(self.status, "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": str(self)}}

    def response(self, path: str) -> JSONResponse:
        """The HTTP response to a request for `path`."""
        is_anthropic = path == MESSAGES_PATH or path.startswith(MESSAGES_PATH + "/")
        body = self.anthropic_body() if is_anthropic else self.body()
        return JSONResponse(body, status_code=self.status, headers=dict(self.headers or {}))


def refused(message: str, *, param: str | None = None, code: str | None = None) -> APIError:
    """A 400 that the caller can correct."""
    return APIError(message, param=param, code=code)


def overloaded(message: str, *, retry_after: int) -> APIError:
    """A 429 with Retry-After in seconds."""
    return APIError(
        message, status=429, kind="rate_limit_error", code="overloaded", headers={"Retry-After": str(retry_after)}
    )


def disconnected() -> APIError:
    """For a client that did not wait. Only the log shows it, with the status that other servers use for it."""
    return APIError("the client has disconnected", status=499)


def unavailable(message: str, *, retry_after: int | None = None) -> APIError:
    """A 503: the engine is not running, or the server is shutting down."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return APIError(message, status=503, kind="service_unavailable_error", code="unavailable", headers=headers)
