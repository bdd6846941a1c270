"""/v1/chat/completions: answers a conversation, whole or as a stream, with tools."""

import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from outrider.core.outputs import CompletionOutput, OutputDelta, RequestOutput
from outrider.core.sampling_params import MAX_LOGPROBS, SamplingParams
from outrider.engine.chat import ChatOptions
from outrider.server.body import read_body
from outrider.server.chat_messages import Message, plain_message
from outrider.server.completions import check_finished
from outrider.server.errors import refused
from outrider.server.event_stream import EventStream, event, while_connected
from outrider.server.fields import WHOLE, SamplingFields
from outrider.server.front import Delivery, Front
from outrider.server.logprobs import chat_logprobs, prompt_logprobs
from outrider.server.not_offered import NeutralChatFields
from outrider.server.request_log import note_delivery
from outrider.server.token_details import TokenDetails
from outrider.server.tools import AnswerText, Tool, ToolChoice, ToolUse
from outrider.server.usage import Usage

_INT32 = 2**31 - 1


class ChatRequest(SamplingFields, NeutralChatFields):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1, le=_INT32), WHOLE] | None = Field(
        None, description="Default and maximum: what fits into the context after the prompt."
    )
    max_completion_tokens: Annotated[int, Field(ge=1, le=_INT32), WHOLE] | None = Field(
        None, description="OpenAI's newer name for max_tokens."
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE] | None = Field(
        None, description="Number of most likely tokens per position. Above 0 it needs logprobs: true."
    )
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    add_special_tokens: bool | None = Field(
        None, description="Adds the tokenizer's special tokens to the rendered text. Default false: templates do that."
    )
    echo: Literal[False] | None = Field(None, description="Must be false: the answer does not repeat the conversation.")
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: ToolChoice | None = Field(None, description='Default "auto". A forced call needs tools.')
    parallel_tool_calls: bool | None = Field(None, description="False allows at most one tool call.")
    reasoning_effort: str | None = Field(
        None, description="Passed to the chat template, for templates that use reasoning_effort."
    )
    documents: list[dict[str, Any]] | None = Field(
        None, description="Passed to the chat template, for templates that use documents."
    )
    chat_template: str | None = Field(
        None, description="A Jinja template for this request. Needs a server with --trust-request-chat-template."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Further variables for the chat template.")


class ChatCall:
    """A conversation to continue: its parameters, and the texts of its answers.

    Every endpoint for conversations uses it; it does not know the form of their answers."""

    def __init__(self, front: Front, body: ChatRequest, *, answer_id: str) -> None:
        self.front = front
        self.body = body
        self.id = answer_id
        self.created = int(time.time())
        self.model = body.model or front.model_names[0]
        if body.top_logprobs and not body.logprobs:
            raise refused(
                f"top_logprobs={body.top_logprobs} needs logprobs: true. Add it, or leave top_logprobs out.",
                param="top_logprobs",
            )
        both = {body.max_tokens, body.max_completion_tokens} - {None}
        if len(both) > 1:
            raise refused("max_tokens and max_completion_tokens differ. Give one of them.", param="max_tokens")
        if body.stream and body.prompt_logprobs is not None:
            raise refused("prompt_logprobs are not streamed. Leave stream out.", param="prompt_logprobs")
        most = body.max_tokens if body.max_tokens is not None else body.max_completion_tokens
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        self.tools = ToolUse(
            body.tools,
            body.tool_choice,
            is_parallel=body.parallel_tool_calls is not False,
            parser_name=front.options.tool_call_parser,
            template=body.chat_template or front.chat_template,
        )
        self.texts = [AnswerText(self.tools) for _ in range(body.n or 1)]
        self.params = self._with_grammar(body.to_params(max_tokens=most, logprobs=logprobs))
        self.options = self._chat_options()

    def _with_grammar(self, params: SamplingParams) -> SamplingParams:
        """Adds the grammar that forces a tool call, or keeps the special tokens that mark one."""
        if self.tools.grammar is not None:
            if params.structured_outputs is not None:
                raise refused(
                    "tool_choice forces a tool call, and response_format or structured_outputs asks for another "
                    "format. Give one of them.",
                    param="tool_choice",
                )
            return replace(params, structured_outputs=self.tools.grammar)
        parser = self.tools.new_parser
        if parser is not None and parser().keeps_special_tokens:
            return replace(params, skip_special_tokens=False)
        return params

    def _chat_options(self) -> ChatOptions:
        body, server = self.body, self.front.options
        if body.chat_template is not None and not server.trusts_request_chat_template:
            raise refused(
                "this server does not accept chat_template from callers. Start it with --trust-request-chat-template, "
                "or with --chat-template FILE.",
                param="chat_template",
            )
        template = body.chat_template or self.front.chat_template
        kwargs = dict(body.chat_template_kwargs or {})
        for name, value in (("documents", body.documents), ("reasoning_effort", body.reasoning_effort)):
            if not value:
                continue
            if template is not None and re.search(rf"\b{name}\b", template) is None:
                raise refused(
                    f"{name} is given, and the chat template does not use {name}: the model would not see it. Leave it "
                    "out, or start the server with --chat-template FILE.",
                    param=name,
                )
            if kwargs.get(name, value) != value:
                raise refused(f"{name} differs from chat_template_kwargs. Give one of them.", param=name)
            kwargs[name] = value
        return ChatOptions(
            tools=self.tools.in_template,
            chat_template=body.chat_template or server.chat_template,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message or False,
            add_special_tokens=body.add_special_tokens or False,
            chat_template_kwargs=kwargs,
        )

    def encode(self) -> list[int]:
        """Token ids of the conversation. Takes time: call it through `Front.aside`. Raises RequestError."""
        messages = [plain_message(message) for message in self.body.messages]
        return self.front.encode_chat(messages, self.options)

    async def start(self, request: Request) -> tuple[Delivery, Usage]:
        """Submits the call. Raises APIError or RequestError."""
        job = await self.front.submit(lambda: [{"prompt_token_ids": self.encode()}], self.params, count=1)
        note_delivery(request, answer_id=self.id, delivery=job)
        usage = Usage(
            num_prompt_tokens=job.num_prompt_tokens,
            num_drafts=self.front.config.num_speculative_tokens,
        )
        return job, usage


class _ChatAnswer(ChatCall):
    """A call of /v1/chat/completions, answered in OpenAI's form."""

    def __init__(self, front: Front, body: ChatRequest) -> None:
        super().__init__(front, body, answer_id=f"chatcmpl-{body.request_id or front.new_id()}")
        self.details = TokenDetails(body, front.tokenizer)

    async def answer(self, request: Request) -> Response:
        """Runs the call and returns its response. Raises APIError or RequestError."""
        job, usage = await self.start(request)
        if self.body.stream:
            return EventStream(job, self._events(job, usage))
        return await while_connected(request, job, self._whole(job, usage))

    async def _whole(self, job: Delivery, usage: Usage) -> Response:
        output: RequestOutput | None = None
        while deltas := await job.take():
            for delta in deltas:
                usage.add_delta(delta)
            output = deltas[-1].output
        assert output is not None, "the last delta of a request has no output"
        choices = []
        for completion in output.outputs:
            check_finished(completion.finish_reason, completion.error)
            choice: dict[str, Any] = {
                "index": completion.index,
                "message": self._message(completion),
                "finish_reason": self.texts[completion.index].finish_reason(completion.finish_reason),
                "stop_reason": completion.stop_reason,
                "logprobs": self._logprobs(completion.token_ids, completion.logprobs),
            }
            self.details.add(choice, completion.token_ids, completion.is_draft)
            if completion.logits_digest is not None:
                choice["logits_digest"] = completion.logits_digest
            choices.append(choice)
        answer = self._envelope("chat.completion") | {"choices": choices, "usage": usage.body()}
        if self.body.prompt_logprobs is not None:
            answer["prompt_logprobs"] = prompt_logprobs(output.prompt_logprobs)
        if self.body.return_token_ids:
            answer["prompt_token_ids"] = output.prompt_token_ids
        return JSONResponse(answer)

    def _message(self, completion: CompletionOutput) -> dict[str, Any]:
        text, calls = self.texts[completion.index].push(completion.text, is_last=True)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message["content"] = text if text.strip() else None
            message["tool_calls"] = [{key: call[key] for key in ("id", "type", "function")} for call in calls]
        return message

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    async def _events(self, job: Delivery, usage: Usage) -> AsyncIterator[bytes]:
        options = self.body.stream_options
        is_continuous = options is not None and options.continuous_usage_stats
        envelope = self._envelope("chat.completion.chunk")
        for index in range(self.body.n or 1):
            first: dict[str, Any] = {
                "index": index,
                "delta": {"role": "assistant", "content": ""},
                "finish_reason": None,
                "logprobs": None,
            }
            chunk = envelope | {"choices": [first]}
            if self.body.return_token_ids and index == 0:
                chunk["prompt_token_ids"] = job.requests[0].prompt_token_ids
            yield event(chunk)
        while deltas := await job.take():
            pieces = []
            for delta in deltas:
                usage.add_delta(delta)
                choice = self._delta_choice(delta)
                if choice is None:
                    continue
                chunk = envelope | {"choices": [choice]}
                if is_continuous:
                    chunk["usage"] = usage.body()
                pieces.append(event(chunk))
            if pieces:
                yield b"".join(pieces)
        if options is not None and options.include_usage:
            yield event(envelope | {"choices": [], "usage": usage.body()})

    def _delta_choice(self, delta: OutputDelta) -> dict[str, Any] | None:
        """The choice for a delta; None if all of its text is held back as part of a tool call."""
        check_finished(delta.finish_reason, delta.error)
        text = self.texts[delta.index]
        content, calls = text.push(delta.text, is_last=delta.finish_reason is not None)
        is_silent = not content and not calls and delta.finish_reason is None and delta.logprobs is None
        if is_silent and self.tools.new_parser is not None and not self.details.is_asked_for:
            return None
        choice: dict[str, Any] = {
            "index": delta.index,
            "delta": {"content": content} | ({"tool_calls": calls} if calls else {}),
            "finish_reason": text.finish_reason(delta.finish_reason),
            "stop_reason": delta.stop_reason,
            "logprobs": self._logprobs(delta.token_ids, delta.logprobs),
        }
        self.details.add(choice, delta.token_ids, delta.is_draft)
        if delta.logits_digest is not None:
            choice["logits_digest"] = delta.logits_digest
        return choice

    def _logprobs(self, token_ids: list[int], places: Any) -> dict[str, Any] | None:
        if places is None or not self.body.logprobs:
            return None
        return chat_logprobs(
            token_ids,
            places,
            num_top=self.body.top_logprobs or 0,
            as_ids=self.body.return_tokens_as_token_ids or False,
        )


async def chat_completions(request: Request) -> Response:
    """Handles POST /v1/chat/completions."""
    front: Front = request.app.state.front
    body = await read_body(request, ChatRequest)
    front.check_model(body.model)
    return await _ChatAnswer(front, body).answer(request)
