"""Runs a workload on an engine and times it, as a whole or with the time of every delivery.

Nothing is added to a step. A delivery is timed when the engine calls back with new tokens, one step late, as a server
would see it.
"""

import time
from collections import deque
from dataclasses import dataclass, field

from outrider.bench.workload import Workload
from outrider.core.outputs import OutputDelta, RequestOutput
from outrider.engine.engine import Engine


@dataclass(slots=True)
class Deliveries:
    """Times of one request's tokens, in seconds since its submission."""

    submitted: float
    times: list[float] = field(default_factory=list)
    num_tokens: int = 0

    def note(self, delta: OutputDelta) -> None:
        """Notes a delta; the engine calls it."""
        if delta.token_ids:
            self.times.append(time.perf_counter() - self.submitted)
            self.num_tokens += len(delta.token_ids)

    @property
    def gaps(self) -> list[float]:
        """Seconds between deliveries; each may bring several tokens."""
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The result of one run of a workload."""

    seconds: float
    outputs: list[RequestOutput]
    deliveries: list[Deliveries]
    """One per request; empty if they were not noted."""
    num_steps: int

    @property
    def num_tokens(self) -> int:
        return sum(len(output.outputs[0].token_ids) for output in self.outputs)


def run(engine: Engine, workload: Workload, *, notes_deliveries: bool) -> Run:
    """Submits requests, at most `max_concurrency` at a time, until all have ended."""
    waiting = deque(zip(workload.prompts, workload.params, strict=True))
    outputs: list[RequestOutput] = []
    deliveries: list[Deliveries] = []
    num_running = 0
    first_step = engine.scheduler.num_steps
    start = time.perf_counter()
    while waiting or engine.has_work:
        while waiting and num_running < workload.max_concurrency:
            prompt, params = waiting.popleft()
            request = engine.new_request({"prompt_token_ids": prompt}, params)
            if notes_deliveries:
                deliveries.append(Deliveries(time.perf_counter()))
                engine.add(request, on_delta=deliveries[-1].note)
            else:
                engine.add(request)
            num_running += 1
        finished = engine.step()
        num_running -= len(finished)
        outputs += finished
    seconds = time.perf_counter() - start
    num_steps = engine.scheduler.num_steps - first_step
    return Run(seconds=seconds, outputs=outputs, deliveries=deliveries, num_steps=num_steps)
