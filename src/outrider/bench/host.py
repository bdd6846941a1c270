"""The host's share of a step, without a device: plan, staging, reading results, settling, text. No model is run.

The parts are the engine's own; only the device is a null device. What is timed is steady decoding: all requests are
past their prompt and none ends. `µs` are microseconds (10⁻⁶ s, not the `ms` of a whole step) – per request and step.
"""

import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from outrider.bench.null_device import Answer, NullDevice
from outrider.core.plan import StepPlan
from outrider.core.sampling_params import SamplingParams
from outrider.device.assemble import lay_out
from outrider.device.staging import Staging
from outrider.engine.admission import Admission
from outrider.engine.text import StopChecker
from outrider.engine.tokenizer import Tokenizer
from outrider.scheduler.scheduler import Scheduler

LIMIT = 15.0
"""Microseconds per request and step that the host may take at 64 requests and more."""

NUM_ROWS = (1, 8, 64, 256)
ACCEPTANCE_RATES = (0.75, 0.55, 0.40)
"""With drafts: k = 3 and 2.7 tokens a step, as the published workloads have it."""

_PROMPT_LEN = 512
_WARM_UP_STEPS = 8
_BLOCK_SIZE = 16
_DEPTH = 1
"""Steps in flight while the next one is planned, as in the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFigures:
    """Microseconds per request and step; parts of the best repeat."""

    num_rows: int
    num_drafts: int
    plan: float
    """`Scheduler.plan`."""
    stage: float
    """The host's half of assembly, and the staging buffer."""
    read: float
    """From the packed results to `RowResult`s."""
    settle: float
    """`Scheduler.settle`, text and stops included."""
    text: float
    """Text's part of `settle`: the difference to the best repeat without a tokenizer."""

    @property
    def total(self) -> float:
        return self.plan + self.stage + self.read + self.settle

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total": self.total}


def measure_host(
    tokenizer: Tokenizer, *, num_rows: int, num_drafts: int, num_steps: int, num_repeats: int
) -> HostFigures:
    """The best of `num_repeats` runs of `num_steps` steps; on a machine with other work the best is the truest."""
    rates = ACCEPTANCE_RATES[:num_drafts]
    assert len(rates) == num_drafts, f"{num_drafts} drafts, and rates for {len(ACCEPTANCE_RATES)}"
    loops = [_Loop(tokenizer, num_rows, rates, num_steps) for _ in range(num_repeats)]
    best = min((loop.run() for loop in loops), key=lambda parts: sum(parts.values()))
    silent = min(_Loop(None, num_rows, rates, num_steps).run()["settle"] for _ in range(num_repeats))
    per_row = 1e6 / (num_rows * num_steps)
    parts = {name: seconds * per_row for name, seconds in best.items()}
    return HostFigures(
        num_rows=num_rows, num_drafts=num_drafts, text=max(parts["settle"] - silent * per_row, 0.0), **parts
    )


class _Loop:
    """One engine's loop around a null device."""

    def __init__(
        self, tokenizer: Tokenizer | None, num_rows: int, rates: tuple[float, ...], num_steps: int
    ) -> None:
        self._num_steps = num_steps
        self._num_rows = num_rows
        max_tokens = (num_steps + _WARM_UP_STEPS + 4) * (1 + len(rates))
        num_tokens = _PROMPT_LEN + max_tokens
        script = tokenizer.encode(Path(__file__).read_text()) if tokenizer else list(range(10, 2000))
        self._checker = StopChecker(tokenizer)
        self._scheduler = Scheduler(
            num_blocks=1 + num_rows * -(-num_tokens // _BLOCK_SIZE),
            block_size=_BLOCK_SIZE,
            max_num_seqs=num_rows,
            max_num_batched_tokens=num_rows * _PROMPT_LEN,
            num_drafts=len(rates),
            num_lookahead=max(len(rates) - 1, 0),
            enable_prefix_caching=True,
            stop_checker=self._checker,
        )
        self._device = NullDevice(script, max_rows=num_rows, acceptance_rates=rates)
        self._staging = Staging(torch.device("cpu"))
        self._in_flight: deque[Answer] = deque()
        self._seconds = {"plan": 0.0, "stage": 0.0, "read": 0.0, "settle": 0.0}
        admission = Admission(
            tokenizer=tokenizer,
            vocab_size=1 + max(script),
            max_model_len=num_tokens + 1,
            eos_token_ids=(),
            num_drafts=len(rates),
            seed=0,
        )
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        for index in range(num_rows):
            ids = [script[(index * 13 + place) % len(script)] for place in range(_PROMPT_LEN)]
            request = admission.request({"prompt_token_ids": ids}, params, request_id=str(index))
            self._scheduler.add(request)
            self._checker.begin(request)

    def run(self) -> dict[str, float]:
        """Seconds of each part over the timed steps."""
        for _ in range(_WARM_UP_STEPS):
            self._turn()
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        for _ in range(self._num_steps):
            plan = self._turn()
            assert len(plan.rows) == self._num_rows, "a request is not in the step: not steady decoding"
        return self._seconds

    def _turn(self) -> StepPlan:
        """The engine's turn: plan, launch, and settle what was launched a turn earlier."""
        clock, seconds = time.perf_counter, self._seconds
        start = clock()
        plan = self._scheduler.plan()
        planned = clock()
        assert plan is not None, "nothing to plan: not steady decoding"
        self._staging.put(lay_out(plan))
        staged = clock()
        self._in_flight.append(self._device.step(plan))
        seconds["plan"] += planned - start
        seconds["stage"] += staged - planned
        if len(self._in_flight) > _DEPTH:
            answer = self._in_flight.popleft()
            start = clock()
            result = answer.wait()
            read = clock()
            self._scheduler.settle(answer.plan, result)
            seconds["read"] += read - start
            seconds["settle"] += clock() - read
        return plan
