"""POST /v1/responses, whole or as a stream, and GET and DELETE of a stored response."""

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
from outrider.server.errors import APIError, refused
from outrider.server.event_stream import EventStream, api_error, event, while_connected
from outrider.server.front import Delivery, Front
from outrider.server.logprobs import chat_logprobs
from outrider.server.reader import NO_PROMPT
from outrider.server.responses.body import LOGPROBS, ResponseRequest
from outrider.server.responses.items import ITEM_TYPES, InputItem, ItemReference
from outrider.server.responses.output import Output, Told, new_id
from outrider.server.responses.store import ResponseStore
from outrider.server.usage import Usage

_PARAMS = {"max_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort", "response_format": "text.format"}
"""Names of fields of chat completions to those of this endpoint."""


class _ResponseCall:
    """One call: the chat that it stands for, and its output so far."""

    def __init__(self, front: Front, store: ResponseStore, body: ResponseRequest) -> None:
        self.front = front
        self.store = store
        self.body = body
        self.items = self._conversation()
        try:
            self.chat = ChatCall(front, body.chat_request(self.items), answer_id=new_id("resp"))
        except APIError as error:
            error.param = _PARAMS.get(error.param or "", error.param)
            raise
        is_plain = self.chat.tools.reader(NO_PROMPT).is_plain
        if body.wants_logprobs and not is_plain:
            raise refused(
                f"include: {LOGPROBS} cannot be combined with tool calls or a reasoning parser. Leave it out, or use "
                "/v1/chat/completions, whose log-probabilities are those of all tokens.",
                param="include",
            )
        self.blank = BlankText(is_plain=is_plain)
        self.output = Output(is_streamed=body.stream or False)
        self.finish_reason: str | None = None

    def _conversation(self) -> Sequence[InputItem]:
        """Input items, preceded by those of the previous response and its output. Raises APIError."""
        earlier: list[InputItem] = []
        previous = self.body.previous_response_id
        if previous is not None:
            stored = self.store.find(previous)
            if stored is None:
                code = "previous_response_not_found"
                raise refused(self.store.missing(previous), param="previous_response_id", code=code)
            earlier = [*stored.items, *map(ITEM_TYPES.validate_python, stored.body["output"])]
        return earlier + [self._resolved(item) for item in self.body.items()]

    def _resolved(self, item: InputItem) -> InputItem:
        if not isinstance(item, ItemReference):
            return item
        found = self.store.find_item(item.id)
        if found is None:
            raise refused(
                f"input refers to item {item.id!r}, which is not in the output of a stored response. Send the item.",
                param="input",
                code="item_not_found",
            )
        return ITEM_TYPES.validate_python(found)

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
        self.output.finish(self._status())
        return JSONResponse(await self._finished(usage))

    async def _events(self, job: Delivery, usage: Usage) -> AsyncIterator[bytes]:
        number = 0

        def told(events: Sequence[Told]) -> bytes:
            nonlocal number
            data = b""
            for each in events:
                data += event({"type": each["type"], "sequence_number": number} | each, name=each["type"])
                number += 1
            return data

        begun = self._body("in_progress")
        yield told([{"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")])
        try:
            while deltas := await job.take():
                if data := told([one for delta in deltas for one in await self._add(delta, usage)]):
                    yield data
        except (APIError, OutriderError) as error:
            shown = error if isinstance(error, APIError) else api_error(error)
            last = self.output.finish("incomplete") if self.output.items else []
            failed = self._body("failed") | {
                "error": {"code": "server_error", "message": str(shown)},
                "output": self.output.items,
                "usage": await self._usage_body(usage),
            }
            yield told([*last, {"type": "response.failed", "response": failed}])
            return
        last = self.output.finish(self._status())
        finished = await self._finished(usage)
        yield told([*last, {"type": f"response.{finished['status']}", "response": finished}])

    async def _add(self, delta: OutputDelta, usage: Usage) -> list[Told]:
        usage.add_delta(delta)
        check_finished(delta.finish_reason, delta.error)
        self.finish_reason = delta.finish_reason
        events = self.blank.without(await self.chat.read_delta(delta), is_last=delta.finish_reason is not None)
        return self.output.push(events, self._logprobs(delta), finish_reason=delta.finish_reason)

    def _logprobs(self, delta: OutputDelta) -> list[Any]:
        if not self.body.wants_logprobs or delta.logprobs is None:
            return []
        found = chat_logprobs(delta.token_ids, delta.logprobs, num_top=self.body.top_logprobs or 0, as_ids=False)
        content: list[Any] = found["content"]
        return content

    def _status(self) -> str:
        return "incomplete" if self.finish_reason == "length" else "completed"

    async def _finished(self, usage: Usage) -> dict[str, Any]:
        """The body of the finished response, which is stored if the request says so."""
        body = self._body(self._status()) | {"output": self.output.items, "usage": await self._usage_body(usage)}
        if body["store"]:
            self.store.add(body, self.items)
        return body

    def _body(self, status: str) -> dict[str, Any]:
        asked, params = self.body, self.chat.params
        form = asked.text.format if asked.text is not None else None
        choice = asked.tool_choice or "auto"
        return {
            "id": self.chat.id,
            "object": "response",
            "created_at": self.chat.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": self.chat.model,
            "output": [],
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": asked.previous_response_id,
            "reasoning": {"effort": asked.reasoning.effort if asked.reasoning else None, "summary": None},
            "service_tier": "default",
            "store": asked.store is not False,
            "temperature": params.temperature,
            "text": {"format": {"type": "text"} if form is None else form.model_dump(by_alias=True)},
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [tool.model_dump() for tool in asked.tools or []],
            "top_logprobs": asked.top_logprobs or 0,
            "top_p": params.top_p,
            "truncation": "disabled",
            "usage": None,
        }

    async def _usage_body(self, usage: Usage) -> dict[str, Any]:
        """Token counts in the form of the Responses API, with those of speculative decoding."""
        counts, reasoning, tokenizer = usage.body(), self.output.reasoning, self.front.tokenizer
        num_reasoning = 0
        if reasoning:  # the marks around it are not counted
            ids = await self.front.aside(lambda: tokenizer.encode(reasoning, add_special_tokens=False))
            num_reasoning = min(len(ids), counts["completion_tokens"])
        return {
            "input_tokens": counts["prompt_tokens"],
            # no caller asks for cache writes here: the prefix cache keeps what it can by itself
            "input_tokens_details": counts["prompt_tokens_details"] | {"cache_write_tokens": 0},
            "output_tokens": counts["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": num_reasoning},
            "total_tokens": counts["total_tokens"],
            "speculation": counts["speculation"],
        }


async def create_response(request: Request) -> Response:
    """Handles POST /v1/responses."""
    front: Front = request.app.state.front
    body = await read_body(request, ResponseRequest)
    front.check_model(body.model)
    call = await built(request, lambda: _ResponseCall(front, request.app.state.responses, body))
    return await call.answer(request)


async def stored_response(request: Request) -> Response:
    """Handles GET /v1/responses/{response_id}."""
    store: ResponseStore = request.app.state.responses
    if "stream" in request.query_params and request.query_params["stream"] != "false":
        raise refused("a stored response is not streamed. Leave stream out.", param="stream")
    response_id = request.path_params["response_id"]
    stored = store.find(response_id)
    if stored is None:
        raise _not_stored(store, response_id)
    return JSONResponse(stored.body)


async def delete_response(request: Request) -> Response:
    """Handles DELETE /v1/responses/{response_id}."""
    store: ResponseStore = request.app.state.responses
    response_id = request.path_params["response_id"]
    if not store.delete(response_id):
        raise _not_stored(store, response_id)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


def _not_stored(store: ResponseStore, response_id: str) -> APIError:
    return APIError(store.missing(response_id), status=404, code="response_not_found")
