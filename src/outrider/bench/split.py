"""Splits the time of a step into target, drafter, sampling, the rest of the step, and the host.

This is a separate run, because it puts timers around the parts of a step and launches steps kernel by kernel: a step
that is replayed as a graph has no parts. On a CPU the wall clock times a part. On a GPU events on its stream do, which
are read after the run; there a part includes the gaps between its launches.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from outrider.bench.timeline import run
from outrider.bench.workload import Workload
from outrider.engine.engine import Engine
from outrider.platforms.base import BasePlatform

PARTS = ("target", "drafter", "sampling", "rest of the step", "host")


class PartTimer:
    """Sums seconds by part, on the wall clock or on the device's stream."""

    def __init__(self, platform: BasePlatform) -> None:
        self._accelerator = platform.accelerator
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._events: list[tuple[str, Any, Any]] = []

    def timed(self, part: str, function: Callable[..., Any], *, on_host: bool = False) -> Callable[..., Any]:
        """Wraps `function` so that its time is added to `part`; `on_host` uses the wall clock on every device."""

        def call(*args: Any, **kwargs: Any) -> Any:
            start = self._now(on_host)
            result = function(*args, **kwargs)
            self._add(part, start, self._now(on_host))
            return result

        return call

    def _now(self, on_host: bool) -> Any:
        if on_host or self._accelerator is None:
            return time.perf_counter()
        event = self._accelerator.event(has_timing=True)
        event.record()
        return event

    def _add(self, part: str, start: Any, end: Any) -> None:
        if isinstance(start, float):
            self._seconds[part] += end - start
        else:
            self._events.append((part, start, end))

    def seconds(self) -> dict[str, float]:
        """Total seconds by part. Waits for the device."""
        if self._events:
            assert self._accelerator is not None, "events come from the accelerator"
            self._accelerator.synchronize()
        for part, start, end in self._events:
            self._seconds[part] += start.elapsed_time(end) / 1e3
        self._events = []
        return dict(self._seconds)


class _Timed:
    """Replaces a part of the step: times the named methods, passes everything else through."""

    def __init__(self, inner: Any, timer: PartTimer, part: str, methods: tuple[str, ...]) -> None:
        self._inner = inner
        self._timed = {name: timer.timed(part, getattr(inner, name)) for name in methods}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._timed["__call__"](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return self._timed.get(name) or getattr(self._inner, name)


@dataclass(frozen=True, slots=True)
class Split:
    """Milliseconds per step of each of `PARTS`."""

    ms: dict[str, float]
    num_steps: int


def measure_split(engine: Engine, workload: Workload) -> Split:
    """Runs the workload once with timers in place, and restores the engine afterwards."""
    worker, scheduler = engine.worker, engine.scheduler
    step, timer = worker.step_function, PartTimer(worker.platform)
    drafting = step.drafting
    before = (step.model, step.sampler, drafting.drafter, worker.graphs)
    plan, settle, launch = scheduler.plan, scheduler.settle, worker.step
    parts: Any = step
    drafter_part: Any = drafting
    patched_scheduler: Any = scheduler
    patched_worker: Any = worker
    try:
        parts.model = _Timed(step.model, timer, "target", ("__call__", "logits"))
        parts.sampler = _Timed(step.sampler, timer, "sampling", ("__call__",))
        if drafting.drafter is not None:
            drafter_part.drafter = _Timed(drafting.drafter, timer, "drafter", ("admit", "propose"))
        worker.graphs = None
        patched_scheduler.plan = timer.timed("host", plan, on_host=True)
        patched_scheduler.settle = timer.timed("host", settle, on_host=True)
        patched_worker.step = timer.timed("step", launch)
        result = run(engine, workload, notes_deliveries=False)
    finally:
        parts.model, parts.sampler, drafter_part.drafter, worker.graphs = before
        for owner, name in ((patched_scheduler, "plan"), (patched_scheduler, "settle"), (patched_worker, "step")):
            if name in vars(owner):
                delattr(owner, name)
    seconds = timer.seconds()
    seconds["rest of the step"] = seconds.pop("step") - sum(
        seconds.get(part, 0.0) for part in ("target", "drafter", "sampling")
    )
    per_step = 1e3 / result.num_steps
    return Split({part: seconds.get(part, 0.0) * per_step for part in PARTS}, result.num_steps)
