"""Decoding while prompts arrive: token latency of 32 running requests when four prompts of 4096 tokens arrive.

Workload A's shape. The time between two tokens of a running request before the prompts arrive and while they are read,
and the prompts' time to the first token, for several sizes of a step.

    PYTHONPATH=src python3 -m benchmarks.mixed
"""

import gc
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import decode
from benchmarks.timing import Table, save
from outrider import LLM, SamplingParams

RUNNING, ARRIVING, LENGTH = 32, 4, 4096


def latencies(llm: LLM) -> tuple[list[float], list[float], float]:
    """Milliseconds between tokens of a running request, before and while prompts are read; time to first token."""
    rng = random.Random(0)
    engine = llm.engine

    def submit(length: int, count: int, num_tokens: int) -> list:
        params = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
        requests = []
        for _ in range(count):
            prompt = {"prompt_token_ids": [rng.randrange(128000) for _ in range(length)]}
            request = engine.new_request(prompt, params)
            engine.add(request)
            requests.append(engine.scheduler.find(request.request_id))
        return requests

    running = submit(512, RUNNING, 700)
    while min(len(request.output_token_ids) for request in running) < 40:
        engine.step()
    watched, seen, last = running[0], len(running[0].output_token_ids), time.perf_counter()
    before: list[float] = []
    during: list[float] = []
    arrived: list = []
    first = 0.0
    while len(before) < 60 or not arrived or min(len(request.output_token_ids) for request in arrived) == 0:
        if len(before) == 60 and not arrived:
            arrived, first = submit(LENGTH, ARRIVING, 4), time.perf_counter()
        engine.step()
        now = time.perf_counter()
        if len(watched.output_token_ids) > seen:
            (during if arrived else before).append((now - last) * 1e3)
            seen, last = len(watched.output_token_ids), now
    first = (time.perf_counter() - first) * 1e3
    for request in [*running, *arrived]:
        engine.abort(request.request_id)
    while engine.has_work:
        engine.step()
    return before, during, first


def main() -> None:
    table = Table(
        f"{RUNNING} running requests while {ARRIVING} prompts of {LENGTH} tokens arrive",
        ["drafter", "tokens a step", "ms before: median", "ms meanwhile: median", "most", "last first token ms"],
    )
    with tempfile.TemporaryDirectory() as name:
        decode.write_configs(Path(name))
        for drafter in ("none", "eagle3"):
            for budget in (512, 1024, 2048, 4096, 8192):
                llm = decode.make(Path(name), drafter, 64, max_model_len=4608, max_num_batched_tokens=budget)
                latencies(llm)
                before, during, first = latencies(llm)
                table.add(drafter, budget, statistics.median(before), statistics.median(during), max(during), first)
                del llm
                gc.collect()
                torch.cuda.empty_cache()
    save("mixed", "Decoding while prompts arrive", [table], "", "python3 -m benchmarks.mixed")


if __name__ == "__main__":
    main()
