"""Answers that end when their caller goes: a stream of server-sent events, or one value that takes time.

A caller who has gone is noticed at once, and its job closed. Knows nothing of what is in the events.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from outrider.core.errors import OutriderError
from outrider.engine.client import EngineDeadError
from outrider.server.errors import APIError, unavailable
from outrider.server.front import Delivery

Result = TypeVar("Result")
_GONE = 499
"""What servers log for a caller who did not wait."""
DONE = b"data: [DONE]\n\n"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # proxies must not collect the events
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def event(data: Any) -> bytes:
    """One server-sent event."""
    return f"data: {_encode(data)}\n\n".encode()


class EventStream(Response):
    """Events of a job until it ends, or until the caller goes."""

    media_type = "text/event-stream"

    def __init__(self, job: Delivery, events: AsyncIterator[bytes]) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._job = job
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer, as ASGI has it."""
        watch = asyncio.create_task(_close_when_gone(receive, self._job))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async for data in self._events:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            except (APIError, OutriderError) as error:
                told = error if isinstance(error, APIError) else told_of(error)
                await send({"type": "http.response.body", "body": event(told.body()), "more_body": True})
            await send({"type": "http.response.body", "body": DONE, "more_body": False})
        finally:
            watch.cancel()
            self._job.close()


async def while_connected(request: Request, job: Delivery, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` gives; it is given up when the caller goes. Raises APIError where the engine fails."""
    watch, answer = asyncio.create_task(_close_when_gone(request.receive, job)), asyncio.create_task(work)
    try:
        await asyncio.wait({watch, answer}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise APIError("the caller has gone", status=_GONE)  # nobody hears it
        return answer.result()
    except OutriderError as error:
        raise told_of(error) from error
    finally:
        watch.cancel()
        answer.cancel()
        job.close()


async def _close_when_gone(receive: Callable[[], Awaitable[Any]], job: Delivery) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    job.close()


def told_of(error: OutriderError) -> APIError:
    """What a caller hears of an error of the engine's."""
    if isinstance(error, EngineDeadError):
        return unavailable(f"{error}. The request is lost; send it again.")
    return APIError(str(error))
