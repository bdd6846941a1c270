"""/v1/completions: completes prompts, whole or as a stream."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from outrider.core.outputs import CompletionOutput, OutputDelta, RequestOutput
from outrider.core.sampling_params import MAX_LOGPROBS
from outrider.engine.admission import Prompt
from outrider.server.body import built, read_body
from outrider.server.errors import APIError, refused
from outrider.server.event_stream import EventStream, event, while_connected
from outrider.server.fields import INT32, MAX_IDS, WHOLE, WHOLE_IDS, SamplingFields, TokenId
from outrider.server.front import Delivery, Front
from outrider.server.large_answer import LargeAnswer
from outrider.server.logprobs import TextOffsets, completion_logprobs, prompt_logprobs
from outrider.server.request_log import note_delivery
from outrider.server.token_details import TokenDetails
from outrider.server.usage import Usage

MAX_PROMPTS = 256

PromptText = Annotated[str, Field(min_length=1)]
PromptIds = Annotated[
    list[TokenId], Field(min_length=1, max_length=MAX_IDS, json_schema_extra={"x-limit": "context"}), WHOLE_IDS
]


class CompletionRequest(SamplingFields):
    """Body of /v1/completions."""

    prompt: (
        PromptText
        | PromptIds
        | Annotated[list[PromptText], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[PromptIds], Field(min_length=1, max_length=MAX_PROMPTS)]
    ) = Field(description="Text, token ids, or a list of either.")
    max_tokens: Annotated[int, Field(ge=1, le=INT32), WHOLE] | None = Field(
        None, description="Default 16. Lowered to what fits into the context after the prompt."
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE] | None = None
    echo: bool | None = Field(None, description="The text begins with the prompt.")
    add_special_tokens: bool | None = Field(
        None, description="Adds the tokenizer's special tokens, such as bos, to a prompt of text. Default true."
    )

    @property
    def num_prompts(self) -> int:
        """Number of prompts."""
        return len(self._listed)

    @property
    def _listed(self) -> list[Any]:
        """Each prompt, a text or a list of ids."""
        is_one = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        return [self.prompt] if is_one else list(self.prompt)

    def prompts(self, encode: Callable[[str], list[int]]) -> list[Prompt]:
        """The prompts in the form that the engine takes. `encode` gives the ids of a text without special tokens."""
        return [self._prompt(entry, encode) for entry in self._listed]

    def _prompt(self, given: str | list[int], encode: Callable[[str], list[int]]) -> Prompt:
        if not isinstance(given, str):
            return {"prompt_token_ids": given}
        if self.add_special_tokens is not False:
            return given
        return {"prompt": given, "prompt_token_ids": encode(given)}


class _Call:
    """One call: its parameters, and what has been answered so far."""

    def __init__(self, front: Front, body: CompletionRequest) -> None:
        self.front = front
        self.body = body
        self.id = f"cmpl-{body.request_id or front.new_id()}"
        self.created = int(time.time())
        self.model = body.model or front.model_names[0]
        self.num_choices = body.n or 1
        self.offsets: dict[int, TextOffsets] = {}  # by index of the choice
        max_tokens = 16 if body.max_tokens is None else body.max_tokens
        self._scores_prompt = bool(body.echo) and body.logprobs is not None
        if body.stream and (self._scores_prompt or body.prompt_logprobs is not None):
            raise refused(
                "log-probabilities of the prompt (prompt_logprobs, or echo with logprobs) are not streamed. "
                "Leave stream out.",
                param="stream",
            )
        if self._scores_prompt and body.prompt_logprobs is not None and body.prompt_logprobs != body.logprobs:
            raise refused(
                f"echo with logprobs={body.logprobs} scores the prompt, and prompt_logprobs={body.prompt_logprobs}. "
                "Give the same number, or leave prompt_logprobs out.",
                param="prompt_logprobs",
            )
        params = body.to_params(
            max_tokens=max_tokens,
            logprobs=body.logprobs,
            defaults=front.info.sampling_defaults,
            echo=body.echo or False,
        )
        self.params = replace(params, prompt_logprobs=body.logprobs) if self._scores_prompt else params
        self.details = TokenDetails(body, front.tokenizer, skip_special_tokens=params.skip_special_tokens)

    async def answer(self, request: Request) -> Response:
        """Runs the call and returns its response. Raises APIError or RequestError."""
        body, front = self.body, self.front

        def encode(text: str) -> list[int]:
            return front.encode_prompt(text, self.params, add_special_tokens=False)

        job = await front.submit(
            lambda: body.prompts(encode),
            self.params,
            count=body.num_prompts,
            request=request,
            cache_salt=body.cache_salt,
        )
        note_delivery(request, answer_id=self.id, delivery=job)
        usage = Usage(
            num_prompt_tokens=job.num_prompt_tokens,
            num_drafts=self.front.config.num_speculative_tokens,
        )
        if self.body.stream:
            return EventStream(job, self._events(job, usage))
        return await while_connected(request, job, self._whole(job, usage))

    def _envelope(self) -> dict[str, Any]:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}

    async def _whole(self, job: Delivery, usage: Usage) -> Response:
        outputs: dict[int, RequestOutput] = {}
        while deltas := await job.take():
            for delta in deltas:
                usage.add_delta(delta)
                if delta.output is not None:
                    outputs[job.prompt_index(delta)] = delta.output
        if self.params.prompt_logprobs is None and self.params.num_logprobs is None:
            return JSONResponse(self._answer(outputs, usage))
        return await self.front.aside(lambda: LargeAnswer(self._answer(outputs, usage)))

    def _answer(self, outputs: dict[int, RequestOutput], usage: Usage) -> dict[str, Any]:
        choices = []
        for index, output in sorted(outputs.items()):
            for completion in output.outputs:
                check_finished(completion.finish_reason, completion.error)
                place = index * self.num_choices + completion.index
                choice: dict[str, Any] = {
                    "index": place,
                    "text": completion.text,
                    "finish_reason": completion.finish_reason,
                    "stop_reason": completion.stop_reason,
                    "logprobs": self._whole_logprobs(place, output, completion),
                }
                if completion.index == 0 and self.body.prompt_logprobs is not None:
                    choice["prompt_logprobs"] = prompt_logprobs(output.prompt_logprobs)
                self.details.add(choice, completion.token_ids, completion.is_draft)
                if self.body.return_token_ids:
                    choice["prompt_token_ids"] = output.prompt_token_ids
                if completion.logits_digest is not None:
                    choice["logits_digest"] = completion.logits_digest
                choices.append(choice)
        return self._envelope() | {"choices": choices, "usage": usage.body()}

    async def _events(self, job: Delivery, usage: Usage) -> AsyncIterator[bytes]:
        options = self.body.stream_options
        is_continuous = options is not None and options.continuous_usage_stats
        envelope = self._envelope()
        begun: set[int] = set()
        while deltas := await job.take():
            pieces = []
            for delta in deltas:
                prompt_index = job.prompt_index(delta)
                choice = self._delta_choice(delta, prompt_index)
                if self.body.return_token_ids and choice["index"] not in begun:
                    choice["prompt_token_ids"] = job.requests[prompt_index].prompt_token_ids
                begun.add(choice["index"])
                usage.add_delta(delta)
                chunk = envelope | {"choices": [choice]}
                if is_continuous:
                    chunk["usage"] = usage.body()
                pieces.append(event(chunk))
            yield b"".join(pieces)
        if options is not None and options.include_usage:
            yield event(envelope | {"choices": [], "usage": usage.body()})

    def _delta_choice(self, delta: OutputDelta, prompt_index: int) -> dict[str, Any]:
        check_finished(delta.finish_reason, delta.error)
        place = prompt_index * self.num_choices + delta.index
        choice: dict[str, Any] = {
            "index": place,
            "text": delta.text,
            "logprobs": self._logprobs(place, delta.token_ids, delta.logprobs),
            "finish_reason": delta.finish_reason,
            "stop_reason": delta.stop_reason,
        }
        self.details.add(choice, delta.token_ids, delta.is_draft)
        if delta.logits_digest is not None:
            choice["logits_digest"] = delta.logits_digest
        return choice

    def _whole_logprobs(self, place: int, output: RequestOutput, completion: CompletionOutput) -> dict[str, Any] | None:
        """Log-probabilities of the whole output, preceded by the prompt's if the text begins with the prompt."""
        if not self._scores_prompt:
            return self._logprobs(place, completion.token_ids, completion.logprobs)
        assert output.prompt_logprobs is not None, "the prompt was not scored"
        places = [*output.prompt_logprobs, *(completion.logprobs or [])]
        tokenizer, prompt_ids = self.front.tokenizer, output.prompt_token_ids
        echo = output.prompt or tokenizer.decode(prompt_ids, skip_special_tokens=self.params.skip_special_tokens)
        pieces = tokenizer.prompt_pieces(prompt_ids, echo)
        return self._logprobs(place, prompt_ids + completion.token_ids, places, prompt_pieces=pieces)

    def _logprobs(
        self, index: int, token_ids: list[int], places: Any, *, prompt_pieces: Sequence[bytes] = ()
    ) -> dict[str, Any] | None:
        if places is None or self.body.logprobs is None:
            return None
        return completion_logprobs(
            token_ids,
            places,
            offsets=self.offsets.setdefault(index, TextOffsets()),
            as_ids=self.body.return_tokens_as_token_ids or False,
            prompt_pieces=prompt_pieces,
        )


def check_finished(finish_reason: str | None, error: str | None) -> None:
    """Raises APIError if an output ended because of an error."""
    if finish_reason == "error":
        raise APIError(f"the output could not be continued: {error}", kind="generation_error", code="generation_failed")


async def completions(request: Request) -> Response:
    """Handles POST /v1/completions."""
    front: Front = request.app.state.front
    body = await read_body(request, CompletionRequest)
    front.check_model(body.model)
    call = await built(request, lambda: _Call(front, body))
    return await call.answer(request)
