"""Milliseconds of one step by number of rows and drafts, workload A's shape: what a policy for k has to know.

A step verifies the rows' k drafts and drafts k new ones; k = 0 is plain decoding. Each figure is the median of replays
of the engine's own graph, at 640 tokens of context. Written as JSON too.

    PYTHONPATH=src python3 -m benchmarks.step_times
"""

import gc
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from benchmarks import decode
from benchmarks.timing import RESULTS, Table, save

from outrider import LLM
from outrider.device.graphs import Shape
from outrider.sampling.params import Need

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DRAFTS = (0, 1, 2, 3, 5)
CONTEXT = 640


@torch.inference_mode()
def times_of(llm: LLM, all_rows: Sequence[int]) -> dict[int, float]:
    """Milliseconds by rows; block tables of the engine's first rows are overwritten."""
    worker = llm.engine.worker
    state, graphs = worker._table, worker._graphs
    assert graphs is not None
    per_row = -(-4096 // 16)
    first = torch.arange(max(all_rows), device="cuda").unsqueeze(1) * per_row % (worker.num_blocks - per_row) + 1
    state.block_tables[: max(all_rows)] = (first + torch.arange(per_row, device="cuda")).int()
    num_drafts = llm.engine.config.num_speculative_tokens
    found = {}
    for num_rows in all_rows:
        captured = graphs._get(Shape(num_rows, 4096, Need.NOTHING, num_drafts, num_drafts))
        captured.inputs[0] = torch.arange(num_rows, device="cuda")
        captured.inputs[1] = num_drafts
        times = []
        for _ in range(21):
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
    table = Table("Milliseconds of a step", ["drafts", *(f"{count} rows" for count in ROWS)])
    found: dict[int, dict[int, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        decode.write_configs(Path(name))
        for num_drafts in DRAFTS:
            options = {"num_speculative_tokens": num_drafts} if num_drafts else {}
            llm = decode.make(Path(name), "eagle3" if num_drafts else "none", max(ROWS), **options)
            found[num_drafts] = times_of(llm, ROWS)
            table.add(num_drafts, *found[num_drafts].values())
            del llm
            gc.collect()
            torch.cuda.empty_cache()
    save("step-times", "Step times", [table], (__doc__ or "").split("\n\n")[1], "python3 -m benchmarks.step_times")
    (RESULTS / "step-times.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
