"""The loop: plan a step, launch it, and settle the step that was launched one turn earlier.

With depth 1 the next step is planned while one is in flight; with depth 0 each step is settled before the next is
planned. The code is the same for both: only the number of steps that may be in flight differs.
"""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from outrider.core.config import EngineConfig
from outrider.core.draft_cost import DraftCost
from outrider.core.errors import RequestError
from outrider.core.outputs import CompletionOutput, OutputDelta, RequestOutput
from outrider.core.plan import StepPlan
from outrider.core.pooling import PoolingParams
from outrider.core.request import Request
from outrider.core.sampling_defaults import SamplingDefaults
from outrider.core.sampling_params import SamplingParams
from outrider.device.readback import Handle
from outrider.engine.admission import Admission, Prompt
from outrider.engine.draft_timing import measure_draft_cost
from outrider.engine.grammar import Grammars
from outrider.engine.group import Group, RequestTimes, completion_requests
from outrider.engine.pooling_admission import GENERATES, POOLS, PoolingAdmission
from outrider.engine.pooling_requests import OnPooled, PoolingRequests
from outrider.engine.start_check import check_at_start
from outrider.engine.stats import EngineStats, Recorder
from outrider.engine.step_clock import StepClock
from outrider.engine.text import OutputTexts
from outrider.engine.token_names import TokenNames
from outrider.engine.tokenizer import Tokenizer
from outrider.loading.generation_config import read_sampling_defaults
from outrider.loading.gguf.file import is_gguf
from outrider.runtime.describe import describe
from outrider.runtime.worker import Worker
from outrider.scheduler.draft_policy import AdaptiveDrafts, DraftPolicy, FixedDrafts
from outrider.scheduler.prompt_budget import MeasuredBudget, PromptBudget
from outrider.scheduler.request_state import RequestState
from outrider.scheduler.scheduler import Scheduler
from outrider.scheduler.work_times import WorkTimes


class Engine:
    """One model with its drafter, and all requests on it."""

    def __init__(self, config: EngineConfig, *, skip_tokenizer_init: bool = False) -> None:
        has_own_budget = config.max_num_batched_tokens is not None
        self.worker = Worker(config)
        self.config = config = self.worker.config
        self.tokenizer = None if skip_tokenizer_init else Tokenizer(Path(config.model))
        self.eos_token_ids = _ends(self.worker, self.tokenizer)
        is_plain = config.generation_config == "none"
        self.sampling_defaults = SamplingDefaults() if is_plain else read_sampling_defaults(config.model)
        self._grammars = Grammars(
            self.tokenizer,
            vocab_size=self.worker.model_config.vocab_size,
            eos_token_ids=self.eos_token_ids,
        )
        self._is_synthetic = config.speculative is not None and config.speculative.acceptance_rates is not None
        self.admission = Admission(
            tokenizer=self.tokenizer,
            vocab_size=self.worker.model_config.vocab_size,
            max_model_len=self.worker.max_model_len,
            eos_token_ids=self.eos_token_ids,
            seed=config.seed,
            grammars=self._grammars,
        )
        self.pooling = _pooling_admission(self.worker, self.tokenizer)
        """Admission of a model that pools; None: the engine generates."""
        make_request = self.pooling.request if self.pooling is not None else self.admission.request
        self.worker.verdict = check_at_start(self.worker, make_request)
        self._pooling_requests = PoolingRequests()
        self._texts = OutputTexts(self.tokenizer)
        self._names = TokenNames(self.tokenizer)
        policy = _draft_policy(config, self.worker)
        launches_wait = self.worker.platform.accelerator is None
        is_limited = launches_wait and not has_own_budget and self.pooling is None
        self._work_times = WorkTimes() if is_limited else None
        self._clock = StepClock(policy, self._work_times)
        self.scheduler = Scheduler(
            groups=self.worker.groups,
            num_blocks=self.worker.num_blocks,
            max_num_seqs=config.num_rows,
            max_num_batched_tokens=config.step_token_budget,
            num_drafts=config.num_speculative_tokens,
            num_lookahead=self.worker.num_lookahead,
            enable_prefix_caching=config.enable_prefix_caching,
            stop_rule=self._texts,
            token_rule=self._grammars,
            draft_policy=policy,
            prompt_budget=None if has_own_budget else _prompt_budget(config, self.worker),
            num_snapshots=self.worker.num_snapshots,
            work_times=self._work_times,
            needs_whole_prompts=not self.worker.model_config.is_causal,
        )
        worker = self.worker  # not by way of `self`: a cycle would keep the engine's memory after its last use
        self._recorder = Recorder(
            self.scheduler,
            num_replayed_steps=lambda: worker.num_replayed_steps,
            num_drafts=config.num_speculative_tokens,
            is_exact=self.worker.is_exact,
            is_synthetic=self._is_synthetic,
        )
        self._in_flight: deque[Handle] = deque()
        self._groups: dict[str, Group] = {}
        self._group_of: dict[str, Group] = {}  # by the id of each unfinished completion
        self._num_requests = 0
        self._draft_cost: DraftCost | None = None
        self._knows_draft_cost = False

    def draft_cost(self) -> DraftCost | None:
        """The time of a step with drafts compared with one without. Measured at the first call, on a CPU only, and not
        once the engine has run a step; None if it is not known."""
        if not self._knows_draft_cost and self.scheduler.num_steps == 0:
            self._draft_cost = measure_draft_cost(self.worker, self.admission.request)
        self._knows_draft_cost = True
        return self._draft_cost

    def describe(self) -> list[tuple[str, str]]:
        """The choices that were made, as lines of (name, value) for a person."""
        source = "the GGUF file" if is_gguf(self.config.model) else "generation_config.json"
        said = f"{self.sampling_defaults} ({source}), where a request says nothing"
        if not self.sampling_defaults.given:
            said = "none" if self.config.generation_config == "auto" else "none: generation_config is 'none'"
        return [*describe(self.worker, draft_cost=self.draft_cost()), ("sampling defaults", said)]

    def new_request(self, prompt: Prompt, params: SamplingParams, *, request_id: str | None = None) -> Request:
        """Check a prompt and its parameters, and return the request; nothing is queued yet."""
        if self.pooling is not None:
            raise RequestError(POOLS)
        self._num_requests += 1
        return self.admission.request(prompt, params, request_id=request_id or str(self._num_requests - 1))

    def new_pooling_request(self, prompt: Prompt, params: PoolingParams, *, request_id: str | None = None) -> Request:
        """Check a text and its parameters, and return the pooling request; nothing is queued yet."""
        if self.pooling is None:
            raise RequestError(GENERATES)
        return self.pooling.request(prompt, params, request_id=request_id or self.new_id())

    def new_id(self) -> str:
        """An id for a request."""
        self._num_requests += 1
        return str(self._num_requests - 1)

    def preparation(self, request: Request) -> Callable[[], Any] | None:
        """Work that takes long and that another thread may do before `add`, which then gets its result as `prepared`;
        None if there is none."""
        return None if self._grammars.is_prepared(request) else lambda: self._grammars.prepare(request)

    def add(
        self, request: Request, *, on_delta: Callable[[OutputDelta], None] | None = None, prepared: Any = None
    ) -> None:
        """Queue a checked request, with all its n completions; `on_delta` is called with what each step adds."""
        if self.pooling is not None:
            raise RequestError(POOLS)
        if request.request_id in self._groups:
            raise RequestError(f"request_id={request.request_id!r} is in use. Wait for it, or take another id.")
        times = RequestTimes(queued=time.monotonic())
        states: list[RequestState] = []
        try:
            for completion in completion_requests(request):
                states.append(self.scheduler.add(completion))
                self._texts.begin(completion)
                self._grammars.begin(completion, prepared)
        except Exception:
            for state in states:
                self.scheduler.abort(state.request_id)
                self._texts.forget(state.request_id)
                self._grammars.end(state.request_id)
            raise
        group = Group(states=states, on_delta=on_delta, times=times)
        self._groups[request.request_id] = group
        for state in states:
            self._group_of[state.request_id] = group

    def pool(self, request: Request, on_pooled: OnPooled) -> None:
        """Queue a checked pooling request; `on_pooled` is called once, when it has ended."""
        if self.pooling is None:
            raise RequestError(GENERATES)
        self.scheduler.add(request)
        self._pooling_requests.begin(request.request_id, on_pooled)

    def abort(self, request_id: str) -> RequestOutput | None:
        """Abort a request. Returns its output so far, or None if there is no such request, or if it pools."""
        if request_id in self._pooling_requests:
            state = self.scheduler.abort(request_id)
            assert state is not None, f"pooling request {request_id} has ended"
            self._end_pooling(state)
            return None
        group = self._groups.get(request_id)
        if group is None:
            return None
        output = None
        for state in group.states:
            if self.scheduler.abort(state.request_id) is not None:
                output = self._emit(state, time.monotonic())
        return output

    def stats(self) -> EngineStats:
        """Take a snapshot of the engine's counters."""
        return self._recorder.snapshot()

    def use_draft_policy(self, policy: DraftPolicy) -> None:
        """Let `policy` choose the number of drafts from now on; no step may be in flight."""
        assert not self._in_flight, f"{len(self._in_flight)} steps are in flight"
        self.scheduler.draft_policy = policy
        self._clock = StepClock(policy, self._work_times)

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work or bool(self._in_flight)

    def step(self) -> list[RequestOutput]:
        """Run one turn of the loop. Returns the outputs of the requests that finished in it."""
        outputs = self._turn()
        self._recorder.turn()
        return outputs

    def _turn(self) -> list[RequestOutput]:
        plan = self.scheduler.plan()
        outputs: list[RequestOutput] = []
        if plan is not None:
            self._note_admissions(plan)
            begin = self._clock.begin()
            if plan.has_grammars:
                handle, outputs = self._launch_with_masks(plan)
            else:
                handle = self.worker.step(plan)
            self._in_flight.append(handle)
            self._clock.launched(handle, begin)
        if plan is not None and len(self._in_flight) <= self.config.overlap_depth:
            return outputs
        if not self._in_flight:
            assert not self.scheduler.has_work, "requests wait, nothing runs, and nothing is in flight"
            return outputs
        return outputs + self._settle_oldest()

    def _launch_with_masks(self, plan: StepPlan) -> tuple[Handle, list[RequestOutput]]:
        """Launch a step with grammars. Its masks need the tokens and drafts of the steps before it, which are settled
        while its forward pass runs. Returns also the outputs of requests that finished in them."""
        started = self.worker.begin(plan)
        outputs: list[RequestOutput] = []
        while self._in_flight:
            outputs += self._settle_oldest()
        return self.worker.finish(started, self.scheduler.masks(plan)), outputs

    def _settle_oldest(self) -> list[RequestOutput]:
        handle = self._in_flight.popleft()
        result = handle.wait()
        self._clock.ended(handle)
        begin = self._clock.begin()
        changed = self.scheduler.settle(handle.plan, result)
        if self.pooling is not None:
            for state in changed:
                if state.finish_reason is not None:
                    self._end_pooling(state)
            return []
        now = time.monotonic()
        outputs = [self._emit(state, now) for state in changed]
        self._clock.settled(handle, begin)
        return [output for output in outputs if output is not None]

    def _end_pooling(self, state: RequestState) -> None:
        self._recorder.finish(state)
        self._pooling_requests.end(state)

    def _note_admissions(self, plan: StepPlan) -> None:
        for admission in plan.admissions:
            if self.pooling is not None:
                self._pooling_requests.times(admission.request_id).plan()
            else:
                self._group_of[admission.request_id].times.plan()

    def _emit(self, state: RequestState, now: float) -> RequestOutput | None:
        """Pass a completion's delta to the caller. Returns the whole output if its request has ended."""
        group = self._group_of[state.request_id]
        if group.times.first_token is None and state.num_output_tokens > 0:
            group.times.first_token = now
        is_finished = state.finish_reason is not None
        if not is_finished and group.on_delta is None:
            return None
        output = None
        if is_finished:
            piece, text = self._texts.end(state.request_id)
            self._grammars.end(state.request_id)
            self._recorder.finish(state)
            group.completions[state.request.completion_index] = self._completion(state, text)
            del self._group_of[state.request_id]
            if len(group.completions) == len(group.states):
                del self._groups[group.request_id]
                output = group.output(self._names, ended=now, is_synthetic=self._is_synthetic)
        else:
            piece = self._texts.take(state.request_id)
        if group.on_delta is not None:
            delta = group.delta(state, piece, output, self._names)
            if delta is not None:
                group.on_delta(delta)
        return output

    def _completion(self, state: RequestState, text: str) -> CompletionOutput:
        assert state.finish_reason is not None
        return CompletionOutput(
            index=state.request.completion_index,
            text=text,
            token_ids=state.output_token_ids,
            finish_reason=state.finish_reason.value,
            stop_reason=state.stop_reason,
            logprobs=self._names.output(state) if state.params.num_logprobs is not None else None,
            is_draft=state.is_draft,
            error=state.error,
            logits_digest=f"{state.logits_digest:016x}" if self.config.logits_digest else None,
        )


def _pooling_admission(worker: Worker, tokenizer: Tokenizer | None) -> PoolingAdmission | None:
    model = worker.model_config
    if model.pooler is None:
        return None
    return PoolingAdmission(
        tokenizer=tokenizer,
        vocab_size=model.vocab_size,
        max_model_len=worker.max_model_len,
        abilities=model.pooler.abilities(hidden_size=model.hidden_size, is_causal=model.is_causal),
    )


def _ends(worker: Worker, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """Ids that end an output: those of generation_config.json, of config.json, and the tokenizer's eos."""
    eos_token_id = tokenizer.eos_token_id if tokenizer is not None else None
    is_known = eos_token_id is not None and 0 <= eos_token_id < worker.model_config.vocab_size
    return tuple(dict.fromkeys((*worker.eos_token_ids, *((eos_token_id,) if is_known else ()))))


def _draft_policy(config: EngineConfig, worker: Worker) -> DraftPolicy:
    if config.speculative is not None and config.speculative.adaptive:
        known = worker.measure_steps()
        buckets = sorted({num_rows for num_rows, _ in known}) or worker.row_buckets
        return AdaptiveDrafts(config.draft_widths, row_buckets=buckets, known=known)
    return FixedDrafts(config.num_speculative_tokens)


def _prompt_budget(config: EngineConfig, worker: Worker) -> PromptBudget | None:
    """A policy if the times of steps with prompts are known; None: every step takes as many tokens as fit."""
    seconds = worker.measure_mixed_steps()
    return MeasuredBudget(seconds, most=config.step_token_budget) if seconds else None
