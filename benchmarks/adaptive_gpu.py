"""Adaptive number of drafts against every fixed one, on a GPU: workload A's shape, acceptance drawn at given rates.

One engine that may draft up to 3 tokens runs k = 1, 2, 3 and the adaptive policy, which differ in nothing but the
numbers they choose; k = 0 is an engine without a drafter. Each run of the adaptive policy starts from the times that
the engine measured at startup, without any data on acceptance. All runs draw the same acceptances. Prompts: 64 tokens.

Steady: all requests decode from their first token to a mean length; tokens/s of that time. Changing: requests come in
waves, the next wave when few requests of the last are left, and each asks for between half and one and a half times its
wave's tokens; tokens/s of the whole time, prompts included.

    PYTHONPATH=src python3 -m benchmarks.adaptive_gpu
"""

import gc
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import decode
from benchmarks.timing import Table, save
from outrider import LLM, SamplingParams
from outrider.device.graphs import ROW_BUCKETS
from outrider.scheduler.draft_policy import AdaptiveDrafts, DraftPolicy, FixedDrafts
from outrider.scheduler.request_state import RequestState

MOST = 3
PROFILES = {"high": (0.9, 0.8, 0.7), "usual": (0.75, 0.55, 0.40), "low": (0.3, 0.1, 0.05)}
"""Chance that drafts 1 … i are all accepted."""
STEADY = ((1, 800), (8, 500), (64, 300), (256, 400))
"""Requests, and the mean number of tokens that they reach."""
WAVES = ((1, 350), (64, 200), (8, 280), (256, 110), (2, 350), (128, 140), (1, 350), (32, 210))
"""Requests, and the mean number of tokens that each asks for."""
TRACES = {
    "load 1 … 256, usual": ("usual",) * 8,
    "load 1 … 256, low": ("low",) * 8,
    "load 1 … 256, acceptance changes": ("low", "high", "high", "low", "usual", "usual", "high", "low"),
}
"""Acceptance profile during each wave, for all running requests."""
FEW = 8
"""A wave starts when 1 / this of the last wave's requests are still running."""
PROMPT = 64


class Watched(AdaptiveDrafts):
    """Counts the numbers of drafts that it chooses."""

    used: Counter[int]

    def choose(self, requests: Sequence[RequestState]) -> int:
        chosen = super().choose(requests)
        self.used[chosen] += 1
        return chosen


class Run:
    """One policy on an idle engine."""

    def __init__(self, llm: LLM, policy: DraftPolicy) -> None:
        self.engine = llm.engine
        self.policy = policy
        self.engine.use_draft_policy(policy)
        self._random = random.Random(0)

    def accept(self, profile: str) -> None:
        """From now on drafts are accepted at these rates."""
        synthetic = self.engine.worker.step_function.synthetic
        if synthetic is not None:
            synthetic.rates.copy_(torch.tensor(PROFILES[profile]))

    def submit(self, num_tokens: Sequence[int]) -> list[RequestState]:
        requests = []
        for index, count in enumerate(num_tokens):
            prompt = {"prompt_token_ids": [self._random.randrange(128000) for _ in range(PROMPT)]}
            params = SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True, seed=index)
            request = self.engine.new_request(prompt, params)
            self.engine.add(request)
            requests.append(self.engine.scheduler.find(request.request_id))
        return requests

    def step(self) -> None:
        self.engine.step()

    def forget_choices(self) -> None:
        """Count the policy's choices from here on, so that they are those of the timed steps."""
        if isinstance(self.policy, Watched):
            self.policy.used.clear()

    def finish(self) -> None:
        for request in list(self.engine.scheduler.requests()):
            self.engine.abort(request.request_id)
        while self.engine.has_work:
            self.step()


def steady(run: Run, num_rows: int, num_tokens: int) -> tuple[float, int]:
    """Tokens/s, and steps."""
    requests = run.submit([4 * num_tokens] * num_rows)

    def produced() -> int:
        return sum(request.num_output_tokens for request in requests)

    while any(request.num_output_tokens == 0 for request in requests):
        run.step()
    run.forget_choices()
    first, first_step, start = produced(), run.engine.scheduler.num_steps, time.perf_counter()
    while produced() < num_rows * num_tokens:
        run.step()
    seconds, num_steps = time.perf_counter() - start, run.engine.scheduler.num_steps - first_step
    rate = (produced() - first) / seconds
    run.finish()
    return rate, num_steps


def changing(run: Run, profiles: Sequence[str]) -> tuple[float, int]:
    """Tokens/s, and steps."""
    spread = random.Random(1)
    first_step, start = run.engine.scheduler.num_steps, time.perf_counter()
    num_tokens = 0
    for (num_rows, mean), profile in zip(WAVES, profiles, strict=True):
        run.accept(profile)
        counts = [spread.randint(mean // 2, mean + mean // 2) for _ in range(num_rows)]
        num_tokens += sum(counts)
        requests = run.submit(counts)
        while sum(request.finish_reason is None for request in requests) > num_rows // FEW:
            run.step()
    while run.engine.has_work:
        run.step()
    torch.cuda.synchronize()
    return num_tokens / (time.perf_counter() - start), run.engine.scheduler.num_steps - first_step


def make(directory: Path, drafter: str) -> LLM:
    options = {"num_speculative_tokens": MOST, "max_num_batched_tokens": 2048}
    return decode.make(directory, drafter, max(ROW_BUCKETS), is_synthetic=True, **options)


def used_memory() -> float:
    """GiB of the device."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return (total - free) / (1 << 30)


def start_cost(directory: Path) -> Table:
    """Seconds until an engine is ready, and its memory with the graphs."""
    table = Table("Start, kernels compiled", ["drafter", "LLM(...) s", "of it measuring s", "graphs", "memory GiB"])
    for drafter in ("none", "eagle3", "eagle3-adaptive"):
        start = time.perf_counter()
        llm = decode.make(
            directory, drafter, max(ROW_BUCKETS), num_speculative_tokens=MOST, num_gpu_blocks_override=4096,
            max_num_batched_tokens=2048,
        )  # fmt: skip
        ready = time.perf_counter()
        worker = llm.engine.worker
        if drafter == "eagle3-adaptive":
            worker.measure_steps()
        measured = time.perf_counter() - ready
        table.add(drafter, ready - start, measured, worker.num_graphs, f"{used_memory():.2f}")
        del llm, worker
        used_memory()
    return table


def main() -> None:
    cases = [(num_rows, count, profile) for num_rows, count in STEADY for profile in PROFILES if profile != "high"]
    rates: dict[object, dict[str, float]] = {case: {} for case in [*cases, *TRACES]}
    used: dict[object, str] = {}
    tables = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        decode.write_configs(directory)
        for drafter in ("none", "eagle3-adaptive"):
            llm = make(directory, drafter)
            known = llm.engine.worker.measure_steps()
            fixed = (0,) if drafter == "none" else range(1, MOST + 1)
            policies: list[tuple[str, int | None]] = [(f"k = {k}", k) for k in fixed]
            if drafter != "none":
                policies.append(("adaptive", None))
            warm = Run(llm, FixedDrafts(fixed[-1]))
            for num_rows, _ in STEADY:
                steady(warm, num_rows, 8)
            for case in rates:
                if case in TRACES and drafter == "none" and case != next(iter(TRACES)):
                    rates[case]["k = 0"] = rates[next(iter(TRACES))]["k = 0"]  # nothing of it depends on acceptance
                    continue
                if case not in TRACES and drafter == "none" and case[2] != "usual":
                    rates[case]["k = 0"] = rates[case[0], case[1], "usual"]["k = 0"]
                    continue
                for label, k in policies:
                    policy: DraftPolicy
                    if k is None:
                        policy = Watched((0, 1, 2, 3), row_buckets=ROW_BUCKETS, known=known)
                        policy.used = Counter()
                    else:
                        policy = FixedDrafts(k)
                    run = Run(llm, policy)
                    if case in TRACES:
                        rates[case][label], count = changing(run, TRACES[case])
                    else:
                        run.accept(case[2])
                        rates[case][label], count = steady(run, case[0], case[1])
                    if isinstance(policy, Watched):
                        shares = (
                            f"{width}: {100 * n / policy.used.total():.0f} %"
                            for width, n in sorted(policy.used.items())
                        )
                        used[case] = f"{count} ({', '.join(shares)})"
                    print(case, label, f"{rates[case][label]:.0f} tokens/s, {count} steps", flush=True)
            del llm, warm, run
            used_memory()
        tables.append(start_cost(directory))
    labels = [*(f"k = {k}" for k in range(MOST + 1)), "adaptive"]
    columns = ["load, acceptance", *labels, "to the best fixed", "steps of adaptive, by drafts"]
    for title, chosen in (("Steady", cases), ("Changing", list(TRACES))):
        table = Table(f"{title}, tokens/s", columns)
        for case in chosen:
            best = max(rate for label, rate in rates[case].items() if label != "adaptive")
            label = case if case in TRACES else f"{case[0]} requests, {case[2]}"
            ratio = rates[case]["adaptive"] / best
            table.add(
                label, *(f"{rates[case][policy_label]:.0f}" for policy_label in labels), f"{ratio:.3f}", used[case]
            )
        tables.append(table)
    save("adaptive-gpu", "Adaptive drafts on a GPU", tables, "\n\n".join((__doc__ or "").split("\n\n")[1:3]),
         "python3 -m benchmarks.adaptive_gpu")  # fmt: skip


if __name__ == "__main__":
    main()
