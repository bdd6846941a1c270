"""/v1/chat/completions: answers a conversation, whole or as a stream, with tools."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from outrider.core.outputs import CompletionOutput, OutputDelta, RequestOutput
from outrider.core.sampling_params import MAX_LOGPROBS, SamplingParams
from outrider.engine.chat import ChatOptions
from outrider.server.answer_events import Arguments, CallBegin, Event, Reasoning, Text
from outrider.server.answer_reader import WholeAnswer
from outrider.server.body import built, read_body
from outrider.server.chat_messages import MAX_MESSAGES, Message, plain_message
from outrider.server.completions import check_finished
from outrider.server.errors import refused
from outrider.server.event_stream import EventStream, event, while_connected
from outrider.server.fields import INT32, WHOLE, SamplingFields
from outrider.server.front import Delivery, Front
from outrider.server.large_answer import LargeAnswer
from outrider.server.logprobs import chat_logprobs, prompt_logprobs
from outrider.server.not_offered import NeutralChatFields
from outrider.server.reader import PromptEnd
from outrider.server.request_log import note_delivery
from outrider.server.strict import OnlyFalse
from outrider.server.token_details import TokenDetails
from outrider.server.tools import Tool, ToolChoice, ToolUse
from outrider.server.usage import Usage

Result = TypeVar("Result")
_NUM_END_TOKENS = 16
"""Tokens at the end of a prompt in which a template may have begun the answer."""
_LONG = 1 << 14
"""Characters from which on a text is read beside the event loop."""


class ChatRequest(SamplingFields, NeutralChatFields):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Annotated[int, Field(ge=1, le=INT32), WHOLE] | None = Field(
        None, description="Default: generation_config.json's, else what fits into the context after the prompt."
    )
    max_completion_tokens: Annotated[int, Field(ge=1, le=INT32), WHOLE] | None = Field(
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
    echo: OnlyFalse | None = Field(None, description="Must be false: the answer does not repeat the conversation.")
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: ToolChoice | None = Field(None, description='Default "auto". A forced call needs tools.')
    parallel_tool_calls: bool | None = Field(None, description="False allows at most one tool call.")
    reasoning_effort: str | None = Field(
        None, description="Passed to the chat template, for templates that use reasoning_effort."
    )
    include_reasoning: bool | None = Field(
        None, description="False leaves out the reasoning that --reasoning-parser finds. Default true."
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
            reasoning_parser_name=front.options.reasoning_parser,
        )
        defaults = front.info.sampling_defaults
        most = defaults.max_tokens if most is None else most
        self.params = self._with_grammar(body.to_params(max_tokens=most, logprobs=logprobs, defaults=defaults))
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
        if any(self.front.tokenizer.has_special_token(mark) for mark in self.tools.marks):
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
        job = await self.front.submit(
            lambda: [{"prompt_token_ids": self.encode()}],
            self.params,
            count=1,
            request=request,
            cache_salt=self.body.cache_salt,
        )
        note_delivery(request, answer_id=self.id, delivery=job)
        prompt_end = self._prompt_end(job.requests[0].prompt_token_ids)
        includes_reasoning = self.body.include_reasoning is not False
        self.readers = [
            self.tools.reader(prompt_end, includes_reasoning=includes_reasoning) for _ in range(self.body.n or 1)
        ]
        """One for each choice."""
        usage = Usage(
            num_prompt_tokens=job.num_prompt_tokens,
            num_drafts=self.front.config.num_speculative_tokens,
        )
        return job, usage

    def _prompt_end(self, token_ids: Sequence[int]) -> PromptEnd:
        if self.options.continue_final_message:
            content = self.body.messages[-1].content or ""
            text = content if isinstance(content, str) else "\n".join(part.text for part in content)
        else:
            text = self.front.tokenizer.decode(token_ids[-_NUM_END_TOKENS:], skip_special_tokens=False)
        grammar = self.params.structured_outputs
        is_json = grammar is not None and (grammar.json is not None or grammar.json_object)
        return PromptEnd(
            text=text,
            is_continued=self.options.continue_final_message,
            is_json=is_json,
            is_constrained=grammar is not None and not is_json,
        )

    async def read_delta(self, delta: OutputDelta) -> list[Event]:
        """Events of a delta; after the last delta of a choice, also those that were held back."""
        reader, is_last = self.readers[delta.index], delta.finish_reason is not None

        def read() -> list[Event]:
            return reader.feed(delta.text) + (reader.finish() if is_last else [])

        return await _beside(delta.text, read)

    async def read_whole(self, completion: CompletionOutput) -> WholeAnswer:
        """The message that a whole completion is."""
        read = partial(self.readers[completion.index].read_whole, completion.text, completion.finish_reason)
        return await _beside(completion.text, read)


class _ChatAnswer(ChatCall):
    """A call of /v1/chat/completions, answered in OpenAI's form."""

    def __init__(self, front: Front, body: ChatRequest) -> None:
        super().__init__(front, body, answer_id=f"chatcmpl-{body.request_id or front.new_id()}")
        self.details = TokenDetails(body, front.tokenizer, skip_special_tokens=self.params.skip_special_tokens)

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
            read = await self.read_whole(completion)
            choice: dict[str, Any] = {
                "index": completion.index,
                "message": self._message(read),
                "finish_reason": self.readers[completion.index].finish_reason(completion.finish_reason),
                "stop_reason": completion.stop_reason,
                "logprobs": self._logprobs(completion.token_ids, completion.logprobs),
            }
            self.details.add(choice, completion.token_ids, completion.is_draft)
            if completion.logits_digest is not None:
                choice["logits_digest"] = completion.logits_digest
            choices.append(choice)
        answer = self._envelope("chat.completion") | {"choices": choices, "usage": usage.body()}
        if self.body.return_token_ids:
            answer["prompt_token_ids"] = output.prompt_token_ids
        if self.body.prompt_logprobs is None:
            return JSONResponse(answer)
        places = output.prompt_logprobs
        return await self.front.aside(  # they are many
            lambda: LargeAnswer(answer | {"prompt_logprobs": prompt_logprobs(places)})
        )

    def _message(self, read: WholeAnswer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": read.content, "refusal": None}
        if self.front.options.reasoning_parser is not None or read.reasoning:
            message |= _reasoning(read.reasoning or None)
        if read.calls:
            message["tool_calls"] = [
                _call_body(call.id, call.name) | {"function": {"name": call.name, "arguments": call.arguments}}
                for call in read.calls
            ]
        if (read.calls and not read.content.strip()) or (read.reasoning and not read.content):
            message["content"] = None
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
                for choice in await self._delta_choices(delta):
                    chunk = envelope | {"choices": [choice]}
                    if is_continuous:
                        chunk["usage"] = usage.body()
                    pieces.append(event(chunk))
            if pieces:
                yield b"".join(pieces)
        if options is not None and options.include_usage:
            yield event(envelope | {"choices": [], "usage": usage.body()})

    async def _delta_choices(self, delta: OutputDelta) -> list[dict[str, Any]]:
        """The choices for a delta; none if all of its text is held back. Each has one addition, as in OpenAI's streams;
        the last one has everything else."""
        check_finished(delta.finish_reason, delta.error)
        reader = self.readers[delta.index]
        num_calls = reader.num_calls
        additions = _additions(await self.read_delta(delta), num_calls)
        if not additions:
            is_silent = delta.finish_reason is None and delta.logprobs is None and not self.details.is_asked_for
            if is_silent and not reader.is_plain:
                return []
            additions = [{"content": ""}]
        choices: list[dict[str, Any]] = [
            {"index": delta.index, "delta": addition, "finish_reason": None, "stop_reason": None, "logprobs": None}
            for addition in additions
        ]
        choices[-1] |= {
            "finish_reason": reader.finish_reason(delta.finish_reason),
            "stop_reason": delta.stop_reason,
            "logprobs": self._logprobs(delta.token_ids, delta.logprobs),
        }
        self.details.add(choices[-1], delta.token_ids, delta.is_draft)
        if delta.logits_digest is not None:
            choices[-1]["logits_digest"] = delta.logits_digest
        return choices

    def _logprobs(self, token_ids: list[int], places: Any) -> dict[str, Any] | None:
        if places is None or not self.body.logprobs:
            return None
        return chat_logprobs(
            token_ids,
            places,
            num_top=self.body.top_logprobs or 0,
            as_ids=self.body.return_tokens_as_token_ids or False,
        )


async def _beside(text: str, work: Callable[[], Result]) -> Result:
    """Runs `work`, which reads `text`; in a thread if that takes long."""
    return await asyncio.to_thread(work) if len(text) > _LONG else work()


def _additions(events: list[Event], num_calls: int) -> list[dict[str, Any]]:
    """The addition of each event to the message. `num_calls` calls have begun before."""
    found: list[dict[str, Any]] = []
    for read in events:
        if isinstance(read, Text):
            found.append({"content": read.text})
        elif isinstance(read, Reasoning):
            found.append(_reasoning(read.text))
        elif isinstance(read, CallBegin):
            call = {"index": num_calls} | _call_body(read.id, read.name)
            found.append({"tool_calls": [call]})
            num_calls += 1
        elif isinstance(read, Arguments):
            found.append({"tool_calls": [{"index": num_calls - 1, "function": {"arguments": read.text}}]})
    return found


def _call_body(call_id: str, name: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}


def _reasoning(text: str | None) -> dict[str, Any]:
    """The reasoning under vLLM's name, and under the name that other servers and templates have for it."""
    return {"reasoning": text, "reasoning_content": text}


async def chat_completions(request: Request) -> Response:
    """Handles POST /v1/chat/completions."""
    front: Front = request.app.state.front
    body = await read_body(request, ChatRequest)
    front.check_model(body.model)
    call = await built(request, lambda: _ChatAnswer(front, body))
    return await call.answer(request)
