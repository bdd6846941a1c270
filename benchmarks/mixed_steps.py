"""The GPU's time of each graph in workload D's 384 requests at once, with the GPU's power and clock.

One engine in this process, so that events can be recorded around each replay. "alone" replays the same graph a few
times before any request, with padding rows only: nothing of the KV is read, and the GPU is not hot yet. `--products
cublas` takes PyTorch's matrix products instead of ours, to show how much other products would give; it is not exact.

    PYTHONPATH=src python3 -m benchmarks.mixed_steps [--speculate none|eagle3] [--products ours|cublas]
"""

import argparse
import statistics
import subprocess
import tempfile
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.timing import Table
from benchmarks.traffic import requests
from benchmarks.traffic.shapes import SHAPES
from outrider import LLM, SamplingParams
from outrider.core.plan import StepPlan
from outrider.device import graphs
from outrider.kernels.hopper import linear as hopper_linear

_KV_BYTES = 32 * 8 * 128 * 4
"""Bytes of KV that the model keeps for a token."""


class Recorder:
    """Events around each replay, and what was replayed."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, Any, graphs.Shape, int, int, int]] = []
        prepare, run, recorder = graphs.StepGraphs.prepare_replay, graphs.Replay.run, self

        def prepare_replay(self: graphs.StepGraphs, plan: StepPlan) -> graphs.Replay | None:
            replay = prepare(self, plan)
            if replay is not None:
                shape = next(shape for shape, found in self._captured.items() if found is replay.captured)
                context = sum(row.length_bound for row in plan.rows)
                recorder._next = (shape, plan.num_tokens, len(plan.rows), context)
            return replay

        def timed(self: graphs.Replay) -> Any:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            packed = run(self)
            end.record()
            recorder.steps.append((start, end, *recorder._next))
            return packed

        graphs.StepGraphs.prepare_replay, graphs.Replay.run = prepare_replay, timed  # type: ignore[method-assign]


def watch() -> "subprocess.Popen[str]":
    """Clock and power of the GPU, several times a second."""
    query = ["nvidia-smi", "--query-gpu=clocks.sm,power.draw", "--format=csv,noheader,nounits", "-lms", "200"]
    return subprocess.Popen(query, stdout=subprocess.PIPE, text=True)


def generate(llm: LLM, asks: list[Any]) -> None:
    prompts = [{"prompt_token_ids": ask.prompt} for ask in asks]
    params = [SamplingParams(temperature=0.0, max_tokens=ask.max_tokens, ignore_eos=True) for ask in asks]
    llm.generate(prompts, params)


def cublas(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    out_dtype: torch.dtype | None = None,
    whole_shape: tuple[int, int] | None = None,
) -> Tensor:
    """`linear` by PyTorch."""
    return functional.linear(x, weight, bias).to(out_dtype or x.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speculate", choices=("none", "eagle3"), default="none")
    parser.add_argument("--products", choices=("ours", "cublas"), default="ours")
    found = parser.parse_args()
    if found.products == "cublas":
        hopper_linear.linear = cublas
    shape = SHAPES["llama-8b"]
    with tempfile.TemporaryDirectory() as directory:
        model = shape.write(Path(directory))
        llm = LLM(model.target, skip_tokenizer_init=True, **shape.options(model, found.speculate))
    step_graphs = llm.engine.worker.graphs
    alone = {shape: step_graphs._measured(shape) * 1e3 for shape in step_graphs._captured}
    recorder = Recorder()
    generate(llm, requests.warm_up(shape))
    recorder.steps.clear()
    asks = requests.at_once(shape)
    watching = watch()
    generate(llm, asks)
    torch.cuda.synchronize()
    watching.terminate()
    assert watching.stdout is not None
    samples = [[float(number) for number in line.split(",")] for line in watching.stdout if "," in line]

    by_shape: dict[graphs.Shape, list[tuple[float, ...]]] = defaultdict(list)
    for start, end, key, *sizes in recorder.steps:
        by_shape[key].append((start.elapsed_time(end), *sizes))
    total = sum(entry[0] for entries in by_shape.values() for entry in entries)
    gaps = sum(first[1].elapsed_time(second[0]) for first, second in pairwise(recorder.steps))
    columns = ("tokens of the graph", "rows", "steps", "ms", "of all", "tokens", "KV GB", "ms alone")
    table = Table(f"384 at once, drafter {found.speculate}, products: {found.products}", columns)
    for key, entries in sorted(by_shape.items(), key=lambda item: (item[0].num_tokens or 0, item[0].num_rows)):
        ms, tokens, _, context = (statistics.fmean(column) for column in zip(*entries, strict=True))
        table.add(
            "decoding" if key.num_tokens is None else key.num_tokens,
            key.num_rows,
            len(entries),
            f"{ms:.2f}",
            f"{ms * len(entries) / total:.1%}",
            f"{tokens:.0f}",
            f"{context * _KV_BYTES / 1e9:.1f}",
            f"{alone[key]:.2f}",
        )
    busy = samples[2:-2]
    print(
        f"\n{requests.num_output_tokens(asks) / (total + gaps) * 1e3:.0f} output tokens/s; GPU busy {total:.0f} ms, "
        f"idle between steps {gaps:.0f} ms; power {statistics.median(s[1] for s in busy):.0f} W, clock "
        f"{min(s[0] for s in busy):.0f} to {max(s[0] for s in busy):.0f} MHz, median "
        f"{statistics.median(s[0] for s in busy):.0f} MHz"
    )


if __name__ == "__main__":
    main()
