"""Milliseconds of one step by number of rows and drafts, workload A's shape: the input of a policy for k.

A step verifies the rows' k drafts and drafts k new ones. One engine that may draft runs all of them: its steps without
drafts still write the drafter's KV. "plain" is an engine without a drafter. Each figure is the median of replays of the
engine's own graph, at 640 tokens of context; the second table has the engine's own measurements at startup, without
context. Written as JSON too.

    PYTHONPATH=src python3 -m benchmarks.step_times
"""

import gc
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import decode
from benchmarks.timing import RESULTS, Table, save
from outrider import LLM
from outrider.device.graphs import ROW_BUCKETS, Shape

ROWS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256)
MOST = 5
CONTEXT = 640


@torch.inference_mode()
def times_of(llm: LLM, all_rows: Sequence[int], num_drafts: int) -> dict[int, float]:
    """Milliseconds by rows; block tables of the engine's first rows are overwritten."""
    worker = llm.engine.worker
    state, graphs = worker.table, worker.graphs
    assert graphs is not None
    per_row = -(-4096 // 16)
    first = torch.arange(max(all_rows), device="cuda").unsqueeze(1) * per_row % (worker.num_blocks[0] - per_row) + 1
    state.block_tables[0][: max(all_rows)] = (first + torch.arange(per_row, device="cuda")).int()
    found = {}
    for num_rows in all_rows:
        captured = graphs.captured(Shape(num_rows, 4096, (), num_drafts))
        captured.inputs[0] = torch.arange(num_rows, device="cuda")
        captured.inputs[1] = num_drafts
        times = []
        for _ in range(15):
            state.num_tokens[: max(all_rows)] = CONTEXT
            state.num_computed[: max(all_rows)] = CONTEXT - 1
            state.max_total[: max(all_rows)] = 4096
            state.num_drafts[: max(all_rows)] = num_drafts
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            captured.graph.replay()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        found[num_rows] = sorted(times)[len(times) // 2]
    return found


def main() -> None:
    tables = [
        Table(f"Milliseconds of a step, {title}", ["drafts", *(f"{count} rows" for count in rows)])
        for title, rows in ((f"{CONTEXT} tokens of context", ROWS), ("as measured at the start", ROW_BUCKETS))
    ]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        decode.write_configs(Path(name))
        llm = decode.make(Path(name), "none", max(ROWS))
        found["plain"] = times_of(llm, ROWS, 0)
        tables[0].add("plain", *found["plain"].values())
        del llm
        gc.collect()
        torch.cuda.empty_cache()
        llm = decode.make(Path(name), "eagle3-adaptive", max(ROWS), num_speculative_tokens=MOST)
        start = llm.engine.worker.measure_steps()  # first: rows of its graphs are overwritten by the others
        found["drafting"] = {k: times_of(llm, ROWS, k) for k in range(MOST + 1)}
    found["start"] = {
        width: {rows: start[rows, width] * 1e3 for rows in ROW_BUCKETS} for width in llm.engine.config.draft_widths
    }
    for table, part in zip(tables, ("drafting", "start"), strict=True):
        for num_drafts, times in found[part].items():
            table.add(num_drafts, *times.values())
    save("step-times", "Step times", tables, (__doc__ or "").split("\n\n")[1], "python3 -m benchmarks.step_times")
    (RESULTS / "step-times.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
