"""Errors as OpenAI's clients expect them: {"error": {"message", "type", "param", "code"}}, and who makes which.

A message names the field, the value and the remedy. Knows HTTP's status codes; runs nothing.
"""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse


class APIError(Exception):
    """What a caller is told instead of an answer."""

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
        """The JSON of it."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer in its place."""
        return JSONResponse(self.body(), status_code=self.status, headers=dict(self.headers or {}))


def refused(message: str, *, param: str | None = None, code: str | None = None) -> APIError:
    """The caller's to correct."""
    return APIError(message, param=param, code=code)


def overloaded(message: str, *, retry_after: int) -> APIError:
    """Too much at once: come back in some seconds."""
    return APIError(
        message, status=429, kind="rate_limit_error", code="overloaded", headers={"Retry-After": str(retry_after)}
    )


def unavailable(message: str, *, retry_after: int | None = None) -> APIError:
    """The engine is not there, or the server is going away."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return APIError(message, status=503, kind="service_unavailable_error", code="unavailable", headers=headers)
