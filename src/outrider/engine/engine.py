"""The loop: plan, launch, and settle what was launched one turn earlier.

With depth 1 the next step is planned while one is in flight; with depth 0 each step is settled before the next is
planned. It is the same code: only how many steps may be in flight differs.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from outrider.core.config import EngineConfig
from outrider.core.errors import RequestError
from outrider.core.outputs import CompletionOutput, Logprob, OutputDelta, RequestOutput
from outrider.core.plan import StepPlan
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.device.graphs import ROW_BUCKETS
from outrider.device.readback import Handle
from outrider.engine.admission import Admission, Prompt
from outrider.engine.grammar import Grammars
from outrider.engine.group import Group, RequestTimes, completions_of, stop_reason_of
from outrider.engine.stats import EngineStats, Recorder
from outrider.engine.step_clock import StepClock
from outrider.engine.text import StopChecker
from outrider.engine.tokenizer import Tokenizer
from outrider.runtime.worker import Worker
from outrider.scheduler.draft_policy import AdaptiveDrafts, DraftPolicy, FixedDrafts
from outrider.scheduler.scheduler import Scheduler


class Engine:
    """One model with its drafter, and all requests on it."""

    def __init__(self, config: EngineConfig, *, skip_tokenizer_init: bool = False) -> None:
        self.worker = Worker(config)
        self.config = config = self.worker.config
        self.tokenizer = None if skip_tokenizer_init else Tokenizer(Path(config.model))
        self._grammars = Grammars(
            self.tokenizer,
            vocab_size=self.worker.model_config.vocab_size,
            eos_token_ids=self.worker.eos_token_ids,
        )
        is_synthetic = config.speculative is not None and config.speculative.acceptance_rates is not None
        self.admission = Admission(
            tokenizer=self.tokenizer,
            vocab_size=self.worker.model_config.vocab_size,
            max_model_len=self.worker.max_model_len,
            eos_token_ids=self.worker.eos_token_ids,
            num_drafts=config.num_speculative_tokens,
            seed=config.seed,
            grammars=self._grammars,
            is_synthetic=is_synthetic,
        )
        self._stop_checker = StopChecker(self.tokenizer)
        policy = _draft_policy(config, self.worker)
        self._clock = StepClock(policy)
        self.scheduler = Scheduler(
            num_blocks=self.worker.num_blocks,
            block_size=config.block_size,
            max_num_seqs=config.num_rows,
            max_num_batched_tokens=config.step_token_budget,
            num_drafts=config.num_speculative_tokens,
            num_lookahead=self.worker.num_lookahead,
            enable_prefix_caching=config.enable_prefix_caching,
            stop_checker=self._stop_checker,
            grammars=self._grammars,
            draft_policy=policy,
            num_state_slots=self.worker.num_snapshots,
        )
        self._recorder = Recorder(
            self.scheduler,
            num_drafts=config.num_speculative_tokens,
            is_exact=self.worker.is_exact,
            is_synthetic=is_synthetic,
        )
        self._in_flight: deque[Handle] = deque()
        self._groups: dict[str, Group] = {}
        self._group_of: dict[str, Group] = {}  # by the id of each unfinished completion
        self._num_requests = 0

    def new_request(self, prompt: Prompt, params: SamplingParams, *, request_id: str | None = None) -> Request:
        """Check a prompt and its parameters; nothing is queued yet."""
        self._num_requests += 1
        return self.admission.request(prompt, params, request_id=request_id or str(self._num_requests - 1))

    def add(self, request: Request, *, on_delta: Callable[[OutputDelta], None] | None = None) -> None:
        """Queue a checked request, with all its n completions; `on_delta` is called with what each step adds."""
        if request.request_id in self._groups:
            raise RequestError(f"request_id={request.request_id!r} is in use. Wait for it, or take another id.")
        group = Group(requests=completions_of(request), on_delta=on_delta, times=RequestTimes(queued=time.monotonic()))
        added: list[Request] = []
        try:
            for one in group.requests:
                self.scheduler.add(one)
                added.append(one)
                self._stop_checker.begin(one)
                self._grammars.begin(one)
        except Exception:
            for one in added:
                self.scheduler.abort(one.request_id)
                self._stop_checker.forget(one.request_id)
                self._grammars.end(one.request_id)
            raise
        self._groups[request.request_id] = group
        for one in group.requests:
            self._group_of[one.request_id] = group

    def abort(self, request_id: str) -> RequestOutput | None:
        """Take a request back; what it has so far, or None if it is not there."""
        group = self._groups.get(request_id)
        if group is None:
            return None
        output = None
        for one in group.requests:
            if self.scheduler.abort(one.request_id) is not None:
                output = self._emit(one, time.monotonic())
        return output

    def stats(self) -> EngineStats:
        """What the engine has done so far, and what it holds."""
        return self._recorder.snapshot()

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work or bool(self._in_flight)

    def step(self) -> list[RequestOutput]:
        """One turn of the loop; the requests that finished in it."""
        outputs = self._turn()
        self._recorder.turn()
        return outputs

    def _turn(self) -> list[RequestOutput]:
        plan = self.scheduler.plan()
        if plan is not None:
            self._note_admissions(plan)
            begin = self._clock.begin()
            self._in_flight.append(self.worker.step(plan))
            self._clock.launched(self._in_flight[-1], begin)
        if plan is not None and len(self._in_flight) <= self.config.overlap_depth:
            return []
        if not self._in_flight:
            assert not self.scheduler.has_work, "requests wait, nothing runs, and nothing is in flight"
            return []
        handle = self._in_flight.popleft()
        result = handle.wait()
        self._clock.ended(handle)
        changed = self.scheduler.settle(handle.plan, result)
        now = time.monotonic()
        outputs = [self._emit(request, now) for request in changed]
        return [output for output in outputs if output is not None]

    def _note_admissions(self, plan: StepPlan) -> None:
        for admission in plan.admissions:
            times = self._group_of[admission.request_id].times
            if times.planned is None:
                times.planned = time.monotonic()

    def _emit(self, request: Request, now: float) -> RequestOutput | None:
        """Tell the caller what is new of a completion; the whole output where it was the last of its request."""
        group = self._group_of[request.request_id]
        if group.times.first_token is None and request.num_output_tokens > 0:
            group.times.first_token = now
        is_finished = request.finish_reason is not None
        if not is_finished and group.on_delta is None:
            return None
        output = None
        if is_finished:
            piece, text = self._stop_checker.end(request.request_id)
            self._grammars.end(request.request_id)
            self._recorder.finish(request)
            group.completions[request.completion_index] = self._completion(request, text)
            del self._group_of[request.request_id]
            if len(group.completions) == len(group.requests):
                del self._groups[group.request_id]
                output = group.output(self._named, ended=now)
        else:
            piece = self._stop_checker.take(request.request_id)
        if group.on_delta is not None:
            delta = group.delta(request, piece, output, self._named)
            if delta is not None:
                group.on_delta(delta)
        return output

    def _completion(self, request: Request, text: str) -> CompletionOutput:
        assert request.finish_reason is not None
        return CompletionOutput(
            index=request.completion_index,
            text=text,
            token_ids=request.output_token_ids,
            finish_reason=request.finish_reason.value,
            stop_reason=stop_reason_of(request),
            logprobs=self._named(request.logprobs) if request.params.num_logprobs is not None else None,
            is_draft=request.is_draft,
            error=request.error,
            logits_digest=f"{request.logits_digest:016x}" if self.config.logits_digest else None,
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


def _draft_policy(config: EngineConfig, worker: Worker) -> DraftPolicy:
    if config.speculative is not None and config.speculative.adaptive:
        known = worker.measure_steps()
        buckets = sorted({num_rows for num_rows, _ in known}) or ROW_BUCKETS
        return AdaptiveDrafts(config.draft_widths, row_buckets=buckets, known=known)
    return FixedDrafts(config.num_speculative_tokens)
