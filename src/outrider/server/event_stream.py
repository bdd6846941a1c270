"""Responses that end when their client disconnects: a stream of server-sent events, or one value.

A disconnect is noticed at once and closes the job. Knows nothing about the content of events.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from outrider.core.errors import EngineDeadError, OutriderError
from outrider.server.errors import APIError, disconnected, unavailable
from outrider.server.front import Delivery

Result = TypeVar("Result")
DONE = b"data: [DONE]\n\n"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # proxies must not buffer the events
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def event(data: Any, *, name: str | None = None) -> bytes:
    """One server-sent event, with its name if it has one."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {_encode(data)}\n\n".encode()


class EventStream(Response):
    """Sends a job's events until it ends or the client disconnects."""

    media_type = "text/event-stream"

    def __init__(self, job: Delivery, events: AsyncIterator[bytes], *, end: bytes = DONE) -> None:
        """`end` follows the last event."""
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._job = job
        self._events = events
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response, as ASGI requires."""
        watch = asyncio.create_task(_close_on_disconnect(receive, self._job))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async for data in self._events:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            except (APIError, OutriderError) as error:
                shown = error if isinstance(error, APIError) else api_error(error)
                await send({"type": "http.response.body", "body": event(shown.body()), "more_body": True})
            await send({"type": "http.response.body", "body": self._end, "more_body": False})
        finally:
            watch.cancel()
            self._job.close()


class Closable(Protocol):
    """Something that runs for a caller."""

    def close(self) -> None:
        """Ends it, because its caller has left or has all of it."""


async def while_connected(request: Request, job: Closable, work: Coroutine[Any, Any, Result]) -> Result:
    """Awaits `work` and returns its result; cancels it if the client disconnects. Raises APIError for engine errors."""
    watch, answer = asyncio.create_task(_close_on_disconnect(request.receive, job)), asyncio.create_task(work)
    try:
        await asyncio.wait({watch, answer}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise disconnected()
        return answer.result()
    except OutriderError as error:
        raise api_error(error) from error
    finally:
        watch.cancel()
        answer.cancel()
        job.close()


async def _close_on_disconnect(receive: Callable[[], Awaitable[Any]], job: Closable) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    job.close()


def api_error(error: OutriderError) -> APIError:
    """The response for an error that the engine raised."""
    if isinstance(error, EngineDeadError):
        return unavailable(f"{error}. Its output is lost; send the request again.")
    return APIError(str(error))
