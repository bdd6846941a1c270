"""The requests of one call to a pooling model: a few of them are in the engine at once, and the answer comes whole.

So a call with thousands of texts leaves room for other callers, and holds no more places in the queue than it uses.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from outrider.core.pooling import PoolingRequestOutput
from outrider.core.request import Request
from outrider.engine.client import EngineClient, Job
from outrider.server.metrics import Metrics

SLICE = 16
"""Requests that are sent to the engine together, at most."""


class PoolingJob:
    """Requests that were admitted, and the places that they hold in the queue."""

    def __init__(
        self,
        client: EngineClient,
        requests: Sequence[Request],
        *,
        num_places: int,
        free: Callable[[int], None],
        metrics: Metrics,
        arrival: float,
    ) -> None:
        """num_places: how many of the requests may be in the engine at once. `free` is called with the number of places
        that are not needed any more. `arrival`: time.monotonic() when the HTTP request arrived."""
        self.requests = list(requests)
        self._client = client
        self._waiting = deque(self.requests)
        self._jobs: set[Job] = set()
        self._num_places = num_places
        self._free = free
        self._metrics = metrics
        self._arrival = arrival
        self._num_left = len(self.requests)
        """Requests that have not left the engine, those that it does not have yet included."""
        self._num_answered = 0
        self._is_closed = False

    @property
    def num_prompt_tokens(self) -> int:
        """Prompt tokens over all requests."""
        return sum(len(request.prompt_token_ids) for request in self.requests)

    @property
    def num_output_tokens(self) -> int:
        """0: nothing is generated."""
        return 0

    @property
    def finish_reasons(self) -> list[str]:
        """One per request, in the order in which they ended; "abort" for those that have not."""
        return ["stop"] * self._num_answered + ["abort"] * (len(self.requests) - self._num_answered)

    async def outputs(self) -> list[PoolingRequestOutput]:
        """Runs all requests; their outputs in the order of the requests. Raises RequestError or EngineDeadError."""
        found: dict[str, PoolingRequestOutput] = {}

        async def work() -> None:
            while self._waiting and not self._is_closed:
                taken = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
                for output in await self._run(taken):
                    found[output.request_id] = output

        size = min(SLICE, max(1, self._num_places // 4))  # a slice is sent while others run
        workers = [asyncio.create_task(work()) for _ in range(self._num_places // size)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        return [found[request.request_id] for request in self.requests] if len(found) == len(self.requests) else []

    async def _run(self, requests: Sequence[Request]) -> list[PoolingRequestOutput]:
        job = self._client.add(requests)
        job.on_request_over = self._request_over
        self._jobs.add(job)
        try:
            outputs = await job.pooled()
        finally:
            self._jobs.discard(job)
            job.close()
        seconds = time.monotonic() - self._arrival
        for output in outputs:
            self._metrics.on_pooled(output, seconds=seconds)
        self._num_answered += len(outputs)
        return outputs

    def _request_over(self, request: Request) -> None:
        """Called when a request has left the engine, for any reason."""
        self._num_left -= 1
        if not self._is_closed and self._num_left < self._num_places:
            self._num_places -= 1
            self._free(1)

    def close(self) -> None:
        """Ends the job; requests that still run are aborted, and others are not begun."""
        if self._is_closed:
            return
        self._is_closed = True
        for job in list(self._jobs):
            job.close()
        self._free(self._num_places)
        self._num_places = 0
