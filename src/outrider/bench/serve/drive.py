"""Sends all requests at their times, at most `max_concurrency` at once, and collects the answers."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from outrider.bench.serve.answer import Answer
from outrider.bench.serve.client import Client
from outrider.bench.serve.counters import difference, look
from outrider.bench.serve.run import Run
from outrider.gate.metrics_page import Reading, read_page


async def drive(
    client: Client,
    *,
    endpoint: str,
    model: str | None,
    bodies: Sequence[Mapping[str, Any]],
    times: Sequence[float],
    max_concurrency: int | None,
    num_warmups: int,
    on_answer: Callable[[], None],
) -> Run:
    """Sends `bodies[i]` at `times[i]` seconds, or later while `max_concurrency` requests run.

    The first `num_warmups` bodies are sent once before, unmeasured. `model`: None uses the server's first model."""
    async with client:
        name = model if model is not None else await client.first_model()
        named = [{"model": name, **body} for body in bodies]
        await asyncio.gather(*(client.ask(endpoint, body) for body in named[:num_warmups]))

        async def reading() -> Reading:
            return read_page(await client.page("/metrics"), model=name)

        before = await look(reading)
        gate: AbstractAsyncContextManager[Any] = (
            asyncio.Semaphore(max_concurrency) if max_concurrency else nullcontext()
        )

        async def one(body: Mapping[str, Any]) -> Answer:
            async with gate:
                answer = await client.ask(endpoint, body)
            on_answer()
            return answer

        begin = time.perf_counter()
        tasks = []
        for body, at in zip(named, times, strict=True):
            wait = begin + at - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(one(body)))
        answers = await asyncio.gather(*tasks)
        seconds = max(answer.ended for answer in answers) - begin
        num_tokens = sum(answer.num_output_tokens for answer in answers)
        counters = await difference(reading, before, num_requests=len(bodies), num_tokens=num_tokens)
        return Run(model=name, answers=list(answers), seconds=seconds, counters=counters)
