"""Measures steps with drafts and without, with requests of its own, before an engine serves any.

It has a scheduler of its own, so nothing is counted, published to the prefix cache or drawn from the engine's seeds;
what remains on the device is what a finished request leaves.
"""

import time
from collections.abc import Callable, Sequence

from outrider.core.draft_cost import DraftCost
from outrider.core.errors import RequestError
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.engine.step_clock import StepClock
from outrider.engine.text import OutputTexts
from outrider.runtime.worker import Worker
from outrider.scheduler.draft_policy import FixedDrafts
from outrider.scheduler.request_state import RequestState
from outrider.scheduler.scheduler import Scheduler

_ROWS = (1, 8)
_NUM_STEPS = 4
"""Steady steps of each kind; the shortest counts, because a pause of the machine does not belong to a step."""
_RUN = 3
"""Steps of one kind in a row: from the second on, a step verifies as many drafts as it makes."""
_MOST_STEPS = 2 * _RUN * _NUM_STEPS
_PROMPT_TOKENS = 4
_MOST_SECONDS = 0.5
"""Larger numbers of rows are left out if smaller ones have taken longer: a start must not wait for a slow model."""


class _Alternating(FixedDrafts):
    """A few steps without drafts, a few with `num_drafts`, and so on; keeps the seconds of steady steps."""

    def __init__(self, num_drafts: int, *, num_rows: int) -> None:
        super().__init__(num_drafts)
        self.seconds: dict[int, list[float]] = {0: [], num_drafts: []}
        self._widths = tuple(self.seconds)
        self._num_rows = num_rows
        self._num_choices = 0

    def choose(self, requests: Sequence[RequestState]) -> int:
        self._num_choices += 1
        return self._widths[self._num_choices // _RUN % 2]

    def see_step(self, *, num_rows: int, num_drafts: int, num_proposals: int, seconds: float) -> None:
        if num_drafts == num_proposals and num_rows == self._num_rows:
            self.seconds[num_drafts].append(seconds)

    @property
    def has_enough(self) -> bool:
        """Both kinds were seen often enough."""
        return all(len(seconds) >= _NUM_STEPS for seconds in self.seconds.values())


def measure_draft_cost(worker: Worker, make_request: Callable[..., Request]) -> DraftCost | None:
    """The cost of the worker's number of drafts. `make_request`: as `Admission.request`.

    None where it is not known: there is no drafter, their number follows measured times anyway, the device is a GPU, or
    the engine is too small for the requests.
    """
    speculative = worker.config.speculative
    if worker.drafter is None or speculative is None or speculative.adaptive or worker.platform.accelerator is not None:
        return None
    begin, ratios = time.perf_counter(), {}
    for num_rows in _ROWS:
        if num_rows > worker.config.num_rows or time.perf_counter() - begin > _MOST_SECONDS:
            continue
        ratio = _ratio(worker, make_request, num_rows=num_rows)
        if ratio is not None:
            ratios[num_rows] = ratio
    return DraftCost(num_drafts=worker.config.num_speculative_tokens, ratios=ratios) if ratios else None


def _ratio(worker: Worker, make_request: Callable[..., Request], *, num_rows: int) -> float | None:
    """Seconds of a step in which `num_rows` requests decode with drafts, divided by those without."""
    num_drafts = worker.config.num_speculative_tokens
    num_tokens = _MOST_STEPS * (1 + num_drafts)
    if worker.max_model_len <= _PROMPT_TOKENS + num_tokens:
        return None
    policy, texts = _Alternating(num_drafts, num_rows=num_rows), OutputTexts(None)
    scheduler = Scheduler(
        groups=worker.groups,
        num_blocks=worker.num_blocks,
        max_num_seqs=worker.config.num_rows,
        max_num_batched_tokens=worker.config.step_token_budget,
        num_drafts=num_drafts,
        num_lookahead=worker.num_lookahead,
        enable_prefix_caching=False,
        stop_rule=texts,
        draft_policy=policy,
        num_snapshots=worker.num_snapshots,
    )
    for request in _requests(make_request, num_rows, num_tokens=num_tokens):
        try:
            scheduler.add(request)
        except RequestError:  # it needs more blocks than there are
            return None
        texts.begin(request)
    clock = StepClock(policy)
    for _ in range(_MOST_STEPS):
        plan = scheduler.plan()
        if plan is None or policy.has_enough:
            break
        begin = clock.begin()
        handle = worker.step(plan)
        clock.launched(handle, begin)
        result = handle.wait()
        clock.ended(handle)
        scheduler.settle(plan, result)
    return min(policy.seconds[num_drafts]) / min(policy.seconds[0]) if policy.has_enough else None


def _requests(make_request: Callable[..., Request], count: int, *, num_tokens: int) -> Sequence[Request]:
    params = SamplingParams(temperature=0.0, seed=0, max_tokens=num_tokens, ignore_eos=True, detokenize=False)
    prompt = {"prompt_token_ids": list(range(_PROMPT_TOKENS))}
    return [make_request(prompt, params, request_id=f"timing-{index}") for index in range(count)]
