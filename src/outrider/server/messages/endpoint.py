"""POST /v1/messages, whole or as a stream, and POST /v1/messages/count_tokens."""

import json
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from outrider.core.errors import OutriderError
from outrider.core.outputs import OutputDelta
from outrider.server.blank_text import BlankText
from outrider.server.body import built, read_body
from outrider.server.chat import ChatCall
from outrider.server.completions import check_finished
from outrider.server.errors import APIError
from outrider.server.event_stream import EventStream, api_error, event, while_connected
from outrider.server.front import Delivery, Front
from outrider.server.messages.body import CountTokensRequest, MessagesRequest
from outrider.server.messages.output import Content, Told
from outrider.server.reader import NO_PROMPT
from outrider.server.usage import Usage


class _MessagesCall:
    """One call: the chat that it stands for, and its content so far."""

    def __init__(self, front: Front, body: MessagesRequest) -> None:
        self.body = body
        self.chat = ChatCall(front, body.chat_request(front), answer_id=f"msg_{front.new_id()}")
        self.blank = BlankText(is_plain=self.chat.tools.reader(NO_PROMPT).is_plain)
        self.content = Content(is_streamed=body.stream or False)
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None

    async def answer(self, request: Request) -> Response:
        """Runs the call and returns its response. Raises APIError or RequestError."""
        job, usage = await self.chat.start(request)
        if self.body.stream:
            return EventStream(job, self._events(job, usage), end=b"")
        return await while_connected(request, job, self._whole(job, usage))

    async def _whole(self, job: Delivery, usage: Usage) -> Response:
        while deltas := await job.take():
            for delta in deltas:
                await self._add(delta, usage)
        head = json.dumps(self._envelope() | self._ending() | {"usage": _usage_body(usage)}, ensure_ascii=False)
        text = f'{head[:-1]}, "content": {self.content.json()}}}'
        return Response(text.encode(), media_type="application/json")

    async def _events(self, job: Delivery, usage: Usage) -> AsyncIterator[bytes]:
        begun = self._envelope() | {"content": [], "stop_reason": None, "stop_sequence": None}
        yield _told([{"type": "message_start", "message": begun | {"usage": _usage_body(usage)}}])
        try:
            while deltas := await job.take():
                if data := _told([one for delta in deltas for one in await self._add(delta, usage)]):
                    yield data
        except (APIError, OutriderError) as error:
            shown = error if isinstance(error, APIError) else api_error(error)
            yield _told([shown.anthropic_body()])
            return
        ending = {"type": "message_delta", "delta": self._ending(), "usage": _usage_body(usage)}
        yield _told([*self.content.finish(), ending, {"type": "message_stop"}])

    async def _add(self, delta: OutputDelta, usage: Usage) -> list[Told]:
        usage.add_delta(delta)
        check_finished(delta.finish_reason, delta.error)
        self.finish_reason, self.stop_reason = delta.finish_reason, delta.stop_reason
        events = self.blank.without(await self.chat.read_delta(delta), is_last=delta.finish_reason is not None)
        return self.content.push(events, finish_reason=delta.finish_reason)

    def _envelope(self) -> dict[str, Any]:
        return {"id": self.chat.id, "type": "message", "role": "assistant", "model": self.chat.model}

    def _ending(self) -> dict[str, Any]:
        stopped = self.stop_reason if isinstance(self.stop_reason, str) else None
        reason = "end_turn"
        if self.finish_reason == "length":
            reason = "max_tokens"
        elif self.content.has_calls:
            reason = "tool_use"
        elif stopped is not None:
            reason = "stop_sequence"
        return {"stop_reason": reason, "stop_sequence": stopped if reason == "stop_sequence" else None}


def _told(events: Sequence[Told]) -> bytes:
    return b"".join(event(each, name=each["type"]) for each in events)


def _usage_body(usage: Usage) -> dict[str, Any]:
    """Token counts in Anthropic's form: tokens from the prefix cache are not in input_tokens."""
    counts = usage.body()
    cached = counts["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": counts["prompt_tokens"] - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": counts["completion_tokens"],
        "speculation": counts["speculation"],
    }


async def create_message(request: Request) -> Response:
    """Handles POST /v1/messages."""
    front: Front = request.app.state.front
    body = await read_body(request, MessagesRequest)
    front.check_model(body.model)
    call = await built(request, lambda: _MessagesCall(front, body))
    return await call.answer(request)


async def count_message_tokens(request: Request) -> Response:
    """Handles POST /v1/messages/count_tokens."""
    front: Front = request.app.state.front
    body = await read_body(request, CountTokensRequest)
    front.check_model(body.model)

    def count() -> int:
        return len(ChatCall(front, body.chat_request(front), answer_id=f"msg_{secrets.token_hex(8)}").encode())

    return JSONResponse({"input_tokens": await front.aside(count, request)})
