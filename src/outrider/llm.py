"""`LLM`: the offline interface of the engine. Takes prompts and returns finished outputs in their order: text, or
vectors and scores of a model that pools."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

from outrider.core import log
from outrider.core.config import engine_config
from outrider.core.engine_options import EngineOptions
from outrider.core.errors import RequestError
from outrider.core.outputs import OutputDelta, RequestOutput
from outrider.core.pooling import (
    CLASSIFY,
    EMBED,
    SCORE,
    ClassificationRequestOutput,
    EmbeddingRequestOutput,
    PairOptions,
    PoolingParams,
    PoolingRequestOutput,
    ScoringRequestOutput,
)
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.engine.admission import Prompt
from outrider.engine.chat import ChatOptions, Message, encode_chat
from outrider.engine.pooling_admission import GENERATES, PoolingAdmission
from outrider.loading.model_source import with_local_files
from outrider.progress import bar


class LLM:
    """A model with an optional drafter, ready to generate; or a model that pools (`runner`), ready to embed, score and
    classify.

    `model` is a directory in Hugging Face form, or the id of a model on a hub, whose files are downloaded if the cache
    lacks them. Options are the fields of `outrider.core.config.EngineConfig` and
    `speculative_config`, a dict (`outrider.core.config.SpeculativeConfig`). Raises ConfigError, UnsupportedError or
    CheckpointError, each naming the value and the remedy.
    """

    def __init__(self, model: str, *, skip_tokenizer_init: bool = False, **options: Unpack[EngineOptions]) -> None:
        from outrider.engine.engine import Engine

        log.configure_from_environment()
        config = with_local_files(engine_config(model, **options))
        self.engine: Engine = Engine(config, skip_tokenizer_init=skip_tokenizer_init)
        self.engine.sampling_defaults.announce()

    def get_default_sampling_params(self) -> SamplingParams:
        """The parameters of a call without any: those that generation_config.json recommends, unless the option
        generation_config is "none". A `SamplingParams` that is given applies as it is."""
        return self.engine.sampling_defaults.params()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Complete every prompt (text, or {"prompt_token_ids": [...]}); outputs in the order of the prompts.

        One `SamplingParams` applies to all prompts, or there is one for each; without any `get_default_sampling_params`
        applies. A prompt or parameter that cannot be served raises RequestError before any request runs. `use_tqdm`
        shows a bar on a terminal if it takes over two seconds.
        """
        requests = self._requests(prompts, sampling_params)
        queued: list[str] = []
        try:
            for request in requests:
                self.engine.add(request)
                queued.append(request.request_id)
            finished = self._run(len(requests), show=use_tqdm)
        except BaseException:
            for request_id in queued:
                self.engine.abort(request_id)
            raise
        return [finished[request.request_id] for request in requests]

    def stream(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> Iterator[OutputDelta]:
        """Complete prompts like `generate`, in deltas; a delta's `prompt_index` says which prompt it belongs to.

        Raises RequestError at once for a prompt or parameter that cannot be served. Closing the iterator aborts the
        requests that still run.
        """
        return self._stream(self._requests(prompts, sampling_params))

    def _stream(self, requests: list[Request]) -> Iterator[OutputDelta]:
        index_of = {request.request_id: index for index, request in enumerate(requests)}
        deltas: deque[OutputDelta] = deque()
        queued: list[str] = []
        num_finished = 0
        try:
            for request in requests:
                self.engine.add(request, on_delta=deltas.append)
                queued.append(request.request_id)
            while num_finished < len(requests):
                self.engine.step()
                while deltas:
                    delta = deltas.popleft()
                    num_finished += delta.output is not None
                    yield replace(delta, prompt_index=index_of[delta.request_id])
        finally:
            for request_id in queued:
                self.engine.abort(request_id)

    def _requests(
        self, prompts: Prompt | Sequence[Prompt], sampling_params: SamplingParams | Sequence[SamplingParams] | None
    ) -> list[Request]:
        listed: list[Prompt] = [prompts] if isinstance(prompts, (str, dict)) else list(prompts)
        if sampling_params is None or isinstance(sampling_params, SamplingParams):
            params = [sampling_params or self.get_default_sampling_params()] * len(listed)
        else:
            params = list(sampling_params)
        if len(params) != len(listed):
            raise RequestError(f"{len(params)} sampling_params for {len(listed)} prompts. Give one, or one for each.")
        return [self.engine.new_request(prompt, entry) for prompt, entry in zip(listed, params, strict=True)]

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        **options: Any,
    ) -> list[RequestOutput]:
        """Answer one conversation (a list of {"role", "content"}) or several, with the model's chat template.

        Options are the fields of `outrider.engine.chat.ChatOptions`: tools, chat_template, add_generation_prompt,
        continue_final_message, chat_template_content_format, add_special_tokens, chat_template_kwargs.
        """
        if not messages:
            raise RequestError("messages=[] is empty. Give at least one message.")
        tokenizer = self.engine.tokenizer
        if tokenizer is None:
            raise RequestError("chat() needs a tokenizer: leave skip_tokenizer_init unset.")
        for name in options:
            if name not in ChatOptions.__dataclass_fields__:
                known = ", ".join(sorted(ChatOptions.__dataclass_fields__))
                raise RequestError(f"chat option {name!r} is not known. Known: {known}.")
        chat_options = ChatOptions(**options)
        conversations = [messages] if isinstance(messages[0], Mapping) else messages
        prompts: list[Prompt] = [
            {"prompt_token_ids": encode_chat(tokenizer, conversation, chat_options)}  # type: ignore[arg-type]
            for conversation in conversations
        ]
        return self.generate(prompts, sampling_params, use_tqdm=use_tqdm)

    def encode(
        self,
        prompts: Prompt | Sequence[Prompt],
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        *,
        pooling_task: str | None = None,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool = True,
    ) -> list[PoolingRequestOutput]:
        """Numbers of texts, as the task says: `outputs.data` is a list, or a list for each token. In the order of the
        prompts.

        One `PoolingParams` applies to all prompts, or there is one for each. `pooling_task` and
        `truncate_prompt_tokens` replace what they leave unset. Raises RequestError before any request runs, also if the
        engine generates.
        """
        listed: list[Prompt] = [prompts] if isinstance(prompts, (str, dict)) else list(prompts)
        if pooling_params is None or isinstance(pooling_params, PoolingParams):
            params = [pooling_params or PoolingParams()] * len(listed)
        else:
            params = list(pooling_params)
        if len(params) != len(listed):
            raise RequestError(f"{len(params)} pooling_params for {len(listed)} prompts. Give one, or one for each.")
        params = [_filled(entry, pooling_task, truncate_prompt_tokens) for entry in params]
        requests = [
            self.engine.new_pooling_request(prompt, entry) for prompt, entry in zip(listed, params, strict=True)
        ]
        return self._pool(requests, show=use_tqdm)

    def embed(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool = True,
    ) -> list[EmbeddingRequestOutput]:
        """A vector for each text, `outputs.embedding`. The same text gives the same bytes, alone and in any batch."""
        outputs = self.encode(
            prompts,
            pooling_params,
            pooling_task=EMBED,
            truncate_prompt_tokens=truncate_prompt_tokens,
            use_tqdm=use_tqdm,
        )
        return [EmbeddingRequestOutput.from_base(output) for output in outputs]

    def classify(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool = True,
    ) -> list[ClassificationRequestOutput]:
        """A number for each label of the model, `outputs.probs`, for each text."""
        outputs = self.encode(
            prompts,
            pooling_params,
            pooling_task=CLASSIFY,
            truncate_prompt_tokens=truncate_prompt_tokens,
            use_tqdm=use_tqdm,
        )
        labels = self._pooling.abilities.labels
        return [ClassificationRequestOutput.from_base(output, labels) for output in outputs]

    def score(
        self,
        data_1: str | Sequence[str],
        data_2: str | Sequence[str],
        *,
        pooling_params: PoolingParams | None = None,
        pair_options: PairOptions | None = None,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool = True,
    ) -> list[ScoringRequestOutput]:
        """A score for each pair of texts, `outputs.score`: one text and a list, or two lists of equal length.

        A cross-encoder or reranker reads the pair in one prompt, in its own template if it has one. With a model that
        makes vectors, the score is their cosine similarity.
        """
        params = _filled(pooling_params or PoolingParams(), SCORE, truncate_prompt_tokens)
        batch = self._pooling.pairs(
            [data_1] if isinstance(data_1, str) else list(data_1),
            [data_2] if isinstance(data_2, str) else list(data_2),
            params,
            options=pair_options,
            new_id=self.engine.new_id,
        )
        return batch.outputs(self._pool(batch.requests, show=use_tqdm))

    @property
    def _pooling(self) -> PoolingAdmission:
        if self.engine.pooling is None:
            raise RequestError(GENERATES)
        return self.engine.pooling

    def _pool(self, requests: Sequence[Request], *, show: bool) -> list[PoolingRequestOutput]:
        finished: dict[str, PoolingRequestOutput] = {}
        queued: list[str] = []

        def on_pooled(output: PoolingRequestOutput) -> None:
            finished[output.request_id] = output

        try:
            for request in requests:
                self.engine.pool(request, on_pooled)
                queued.append(request.request_id)
            with bar(len(requests), text="pooling", show=show) as advance:
                while len(finished) < len(requests):
                    self.engine.step()
                    advance(len(finished))
        except BaseException:
            for request_id in queued:
                self.engine.abort(request_id)
            raise
        return [finished[request.request_id] for request in requests]

    def _run(self, num_requests: int, *, show: bool) -> dict[str, RequestOutput]:
        finished: dict[str, RequestOutput] = {}
        with bar(num_requests, text="generating", show=show) as advance:
            while self.engine.has_work:
                for output in self.engine.step():
                    finished[output.request_id] = output
                advance(len(finished))
        return finished


def _filled(params: PoolingParams, task: str | None, truncate_prompt_tokens: int | None) -> PoolingParams:
    """The parameters with the task of the method that is called, and its limit."""
    if task is not None and params.task not in (None, task):
        raise RequestError(f"task={params.task!r} is not that of this call, {task!r}. Leave it unset.")
    if truncate_prompt_tokens is not None and params.truncate_prompt_tokens is not None:
        raise RequestError("truncate_prompt_tokens is given twice. Leave it unset in pooling_params.")
    limit = params.truncate_prompt_tokens if truncate_prompt_tokens is None else truncate_prompt_tokens
    return replace(params, task=task or params.task, truncate_prompt_tokens=limit)
