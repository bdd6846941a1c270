"""The loop: plan, launch, and settle what was launched one turn earlier.

With depth 1 the next step is planned while one is in flight; with depth 0 each step is settled before the next is
planned. It is the same code: only how many steps may be in flight differs.
"""

from collections import deque
from dataclasses import replace
from pathlib import Path

from outrider.core.config import EngineConfig
from outrider.core.outputs import CompletionOutput, FinishReason, Logprob, RequestOutput
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.device.readback import Handle
from outrider.engine.admission import Admission, Prompt
from outrider.engine.text import StopChecker
from outrider.engine.tokenizer import Tokenizer
from outrider.runtime.worker import Worker
from outrider.scheduler.scheduler import Scheduler


class Engine:
    """One model with its drafter, and all requests on it."""

    def __init__(self, config: EngineConfig, *, skip_tokenizer_init: bool = False) -> None:
        self.worker = Worker(config)
        self.config = config
        self.tokenizer = None if skip_tokenizer_init else Tokenizer(Path(config.model))
        self.admission = Admission(
            tokenizer=self.tokenizer,
            vocab_size=self.worker.model_config.vocab_size,
            max_model_len=self.worker.max_model_len,
            eos_token_ids=self.worker.eos_token_ids,
            num_drafts=config.num_speculative_tokens,
            seed=config.seed,
        )
        self._stop_checker = StopChecker(self.tokenizer)
        self.scheduler = Scheduler(
            num_blocks=self.worker.num_blocks,
            block_size=config.block_size,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.step_token_budget,
            num_drafts=config.num_speculative_tokens,
            num_lookahead=self.worker.num_lookahead,
            enable_prefix_caching=config.enable_prefix_caching,
            stop_checker=self._stop_checker,
        )
        self._in_flight: deque[Handle] = deque()
        self._num_requests = 0

    def new_request(self, prompt: Prompt, params: SamplingParams, *, request_id: str | None = None) -> Request:
        """Check a prompt and its parameters; nothing is queued yet."""
        self._num_requests += 1
        return self.admission.request(prompt, params, request_id=request_id or str(self._num_requests - 1))

    def add(self, request: Request) -> None:
        """Queue a checked request."""
        self.scheduler.add(request)
        self._stop_checker.begin(request)

    def abort(self, request_id: str) -> RequestOutput | None:
        """Take a request back; what it has so far, or None if it is not there."""
        request = self.scheduler.abort(request_id)
        return self._output(request) if request else None

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work or bool(self._in_flight)

    def step(self) -> list[RequestOutput]:
        """One turn of the loop; the requests that finished in it."""
        plan = self.scheduler.plan()
        if plan is not None:
            self._in_flight.append(self.worker.step(plan))
        if plan is not None and len(self._in_flight) <= self.config.overlap_depth:
            return []
        if not self._in_flight:
            assert not self.scheduler.has_work, "requests wait, nothing runs, and nothing is in flight"
            return []
        handle = self._in_flight.popleft()
        changed = self.scheduler.settle(handle.plan, handle.wait())
        return [self._output(request) for request in changed if request.finish_reason is not None]

    def _output(self, request: Request) -> RequestOutput:
        assert request.finish_reason is not None
        is_string = isinstance(request.stop_reason, str)
        text = self._stop_checker.end(request.request_id, was_cut=is_string)
        completion = CompletionOutput(
            index=0,
            text=text,
            token_ids=request.output_token_ids,
            finish_reason=request.finish_reason.value,
            stop_reason=request.stop_reason if request.finish_reason is FinishReason.STOP else None,
            logprobs=self._named(request.logprobs) if request.params.logprobs is not None else None,
            is_draft=request.is_draft,
            logits_digest=f"{request.logits_digest:016x}" if self.config.logits_digest else None,
        )
        return RequestOutput(
            request_id=request.request_id,
            prompt=request.prompt,
            prompt_token_ids=request.prompt_token_ids,
            outputs=[completion],
            seed=request.seed,
            num_cached_tokens=max(request.num_cached_tokens, 0),
            num_preemptions=request.num_preemptions,
            speculation=request.speculation,
        )

    def _named(self, logprobs: list[dict[int, Logprob]]) -> list[dict[int, Logprob]]:
        """The same with each token's own text, where there is a tokenizer."""
        tokenizer = self.tokenizer
        if tokenizer is None:
            return logprobs
        return [
            {token_id: replace(entry, decoded_token=tokenizer.decode([token_id])) for token_id, entry in place.items()}
            for place in logprobs
        ]
