"""Host time of a step without a device: plan, staging, reading results, settling, text. No model runs.

All parts are the engine's own except the device, which is a `NullDevice`. Steady decoding is timed: all requests are
past their prompt and none ends. The clock is the thread's CPU time, so other processes do not count, though they slow
it down. Times are microseconds per request and step.
"""

import statistics
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from outrider.bench.null_device import Answer, NullDevice
from outrider.core.kv_groups import BlockGroup
from outrider.core.plan import StepPlan
from outrider.core.sampling_params import SamplingParams
from outrider.device.assemble import Assembler
from outrider.device.staging import Staging
from outrider.device.table import RequestTable
from outrider.engine.admission import Admission
from outrider.engine.text import OutputTexts
from outrider.engine.tokenizer import Tokenizer
from outrider.kernels import load_kernels
from outrider.platforms.base import select_platform
from outrider.scheduler.scheduler import Scheduler

LIMIT = 15.0
"""Maximum host time in microseconds per request and step, at 64 requests and more."""

NUM_ROWS = (1, 8, 64, 256)
ACCEPTANCE_RATES = (0.75, 0.55, 0.40)
"""Acceptance by position with drafts: k = 3 and 2.7 tokens per step, as in the published workloads."""

_PROMPT_LEN = 512
_WARM_UP_STEPS = 8
_WINDOW = 16
_BLOCK_SIZE = 16
_DEPTH = 1
"""Number of steps in flight while the next one is planned, as in the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFigures:
    """Microseconds per request and step; the parts are those of the best window."""

    num_rows: int
    num_drafts: int
    plan: float
    """`Scheduler.plan`."""
    stage: float
    """The host's part of assembly, and filling the staging buffer."""
    read: float
    """From the packed results to `RowResult`s."""
    settle: float
    """`Scheduler.settle`, text and stops included."""
    text: float
    """The part of `settle` that detokenizes: the difference to the best window without a tokenizer."""
    median: float
    """Total of the median window; `total` is that of the best."""

    @property
    def total(self) -> float:
        return self.plan + self.stage + self.read + self.settle

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total": self.total}


def measure_host(tokenizer: Tokenizer, *, num_rows: int, num_drafts: int, num_windows: int) -> HostFigures:
    """Measures `num_windows` windows of 16 steps; returns the best and the median.

    In 16 steps without drafts every request fills one block. The best window is least disturbed by other processes.
    """
    rates = ACCEPTANCE_RATES[:num_drafts]
    assert len(rates) == num_drafts, f"{num_drafts} drafts, but acceptance rates for {len(ACCEPTANCE_RATES)}"
    windows = _Loop(tokenizer, num_rows, rates, num_windows).run()
    silent = _Loop(None, num_rows, rates, num_windows).run()
    best = min(windows, key=lambda parts: sum(parts.values()))
    return HostFigures(
        num_rows=num_rows,
        num_drafts=num_drafts,
        text=max(best["settle"] - min(parts["settle"] for parts in silent), 0.0),
        median=statistics.median(sum(parts.values()) for parts in windows),
        **best,
    )


class _Loop:
    """The engine's loop around a null device."""

    def __init__(self, tokenizer: Tokenizer | None, num_rows: int, rates: tuple[float, ...], num_windows: int) -> None:
        self._num_windows = num_windows
        self._num_rows = num_rows
        max_tokens = (num_windows * _WINDOW + _WARM_UP_STEPS + 4) * (1 + len(rates))
        num_tokens = _PROMPT_LEN + max_tokens
        script = tokenizer.encode(Path(__file__).read_text()) if tokenizer else list(range(10, 2000))
        self._texts = OutputTexts(tokenizer)
        self._scheduler = Scheduler(
            groups=(BlockGroup(block_size=_BLOCK_SIZE),),
            num_blocks=(1 + num_rows * -(-num_tokens // _BLOCK_SIZE),),
            max_num_seqs=num_rows,
            max_num_batched_tokens=num_rows * _PROMPT_LEN,
            num_drafts=len(rates),
            num_lookahead=max(len(rates) - 1, 0),
            enable_prefix_caching=True,
            stop_rule=self._texts,
        )
        self._device = NullDevice(script, max_rows=num_rows, acceptance_rates=rates)
        kernels, staging = load_kernels(("reference",)), Staging(select_platform("cpu"))
        self._assembler = Assembler(kernels=kernels, staging=staging, num_drafts=len(rates), wants_digest=False)
        self._table = RequestTable(
            max_rows=num_rows,
            max_model_len=num_tokens,
            num_drafts=len(rates),
            groups=(BlockGroup(block_size=_BLOCK_SIZE),),
            vocab_size=1 + max(script),
            kernels=kernels,
            staging=staging,
            device=torch.device("cpu"),
        )
        self._in_flight: deque[Answer] = deque()
        self._seconds = {"plan": 0.0, "stage": 0.0, "read": 0.0, "settle": 0.0}
        admission = Admission(
            tokenizer=tokenizer,
            vocab_size=1 + max(script),
            max_model_len=num_tokens + 1,
            eos_token_ids=(),
            seed=0,
        )
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        for index in range(num_rows):
            ids = [script[(index * 13 + place) % len(script)] for place in range(_PROMPT_LEN)]
            request = admission.request({"prompt_token_ids": ids}, params, request_id=str(index))
            self._scheduler.add(request)
            self._texts.begin(request)

    def run(self) -> list[dict[str, float]]:
        """Microseconds per request and step of each part, for every window."""
        for _ in range(_WARM_UP_STEPS):
            self._turn()
        windows = []
        for _ in range(self._num_windows):
            self._seconds = dict.fromkeys(self._seconds, 0.0)
            for _ in range(_WINDOW):
                plan = self._turn()
                assert len(plan.rows) == self._num_rows, "a request is not in the step: not steady decoding"
            per_row = 1e6 / (self._num_rows * _WINDOW)
            windows.append({name: seconds * per_row for name, seconds in self._seconds.items()})
        return windows

    def _turn(self) -> StepPlan:
        """One turn of the engine: plan, launch, and settle the step that was launched a turn earlier."""
        clock, seconds = time.thread_time, self._seconds
        start = clock()
        plan = self._scheduler.plan()
        seconds["plan"] += clock() - start
        assert plan is not None, "nothing to plan: not steady decoding"
        self._table.admit(plan.admissions)
        start = clock()
        self._assembler.lay_out(plan, self._table)
        seconds["stage"] += clock() - start
        self._in_flight.append(self._device.step(plan))
        if len(self._in_flight) > _DEPTH:
            answer = self._in_flight.popleft()
            start = clock()
            result = answer.wait()
            read = clock()
            self._scheduler.settle(answer.plan, result)
            seconds["read"] += read - start
            seconds["settle"] += clock() - read
        return plan
