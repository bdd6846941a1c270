"""Overlap of host and device: launches against the end of the previous step, from a profiler trace of steady decoding.

For each number of requests: steps that were launched before the previous step ended, and the device's idle time between
two steps. Workload A's shape, plain and with EAGLE-3.

    PYTHONPATH=src python3 -m benchmarks.overlap
"""

import gc
import itertools
import json
import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import decode
from benchmarks.timing import Table, save

COUNTS = (1, 8, 64, 256)
STEPS = 40


def steps_of(trace: Path) -> list[tuple[float, float, float]]:
    """(launch, first start, last end) of every replayed graph in microseconds, in order of launch."""
    events = [e for e in json.loads(trace.read_text())["traceEvents"] if e.get("ph") == "X"]
    launches = {
        e["args"]["correlation"]: e["ts"] for e in events if e["name"].startswith("cudaGraphLaunch") and "args" in e
    }
    spans: dict[int, tuple[float, float]] = {}
    for event in events:
        key = event.get("args", {}).get("correlation")
        if event.get("cat") == "kernel" and key in launches:
            start, end = spans.get(key, (event["ts"], 0.0))
            spans[key] = (min(start, event["ts"]), max(end, event["ts"] + event["dur"]))
    return [(launches[key], *spans[key]) for key in sorted(spans, key=launches.__getitem__)]


def main() -> None:
    tables = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        decode.write_configs(directory)
        for drafter in ("none", "eagle3"):
            table = Table(
                f"Overlap, {drafter}",
                ["requests", "steps", "launched before the end of the step before", "ms a step", "idle between steps"],
            )
            tables.append(table)
            llm = decode.make(directory, drafter, max(COUNTS))
            for count in COUNTS:
                if drafter != "none" and count > 64:
                    continue
                decode.timed(llm, count, STEPS)
                with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as prof:
                    decode.timed(llm, count, STEPS)
                trace = directory / "trace.json"
                prof.export_chrome_trace(str(trace))
                steps = steps_of(trace)[3:-2]  # the first ones follow prompts, the last ones wait for the end
                pairs = list(itertools.pairwise(steps))
                early = sum(launch < before[2] for before, (launch, _, _) in pairs)
                idle = sum(max(0.0, start - before[2]) for before, (_, start, _) in pairs)
                span = steps[-1][1] - steps[0][1]
                table.add(count, len(pairs), early, span / len(pairs) / 1e3, f"{idle / span:.2%}")
            del llm
            gc.collect()
            torch.cuda.empty_cache()
    save("overlap", "Host and device", tables, (__doc__ or "").split("\n\n")[1], "python3 -m benchmarks.overlap")


if __name__ == "__main__":
    main()
