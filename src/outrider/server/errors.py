"""Errors in the form that OpenAI's clients expect: {"error": {"message", "type", "param", "code"}}.

A message names the field, the value and the remedy. Knows HTTP status codes; runs nothing.
"""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse


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

    def response(self) -> JSONResponse:
        """The HTTP response."""
        return JSONResponse(self.body(), status_code=self.status, headers=dict(self.headers or {}))


def refused(message: str, *, param: str | None = None, code: str | None = None) -> APIError:
    """A 400 that the caller can correct."""
    return APIError(message, param=param, code=code)


def overloaded(message: str, *, retry_after: int) -> APIError:
    """A 429 with Retry-After in seconds."""
    return APIError(
        message, status=429, kind="rate_limit_error", code="overloaded", headers={"Retry-After": str(retry_after)}
    )


def unavailable(message: str, *, retry_after: int | None = None) -> APIError:
    """A 503: the engine is not running, or the server is shutting down."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return APIError(message, status=503, kind="service_unavailable_error", code="unavailable", headers=headers)
