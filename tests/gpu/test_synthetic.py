"""Synthetic acceptance on a GPU: the graph of a step has the same kernels, as often, as the real one's."""

import json
from collections import Counter

import pytest
from torch.profiler import ProfilerActivity, profile

from outrider import SamplingParams
from tests.support import request_mix

from .gpu_engine import EAGLE3, ZOO

RATES = [0.75, 0.55, 0.40]


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan():
    """Not here: the engine allocates through captured graphs."""


def _graphs(tmp_path, config) -> tuple[list[Counter[str]], list]:
    """Kernels of each replayed graph by name, and the outputs."""
    llm = request_mix.make(ZOO / "tiny", device="cuda", speculative_config=config)
    cases = [
        request_mix.Case(str(seed), (3 + seed,) * 9, SamplingParams(seed=seed, max_tokens=60, ignore_eos=True))
        for seed in range(4)
    ]
    request_mix.run(llm, cases)
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as prof:
        outputs = request_mix.run(llm, cases)
    path = tmp_path / "trace.json"
    prof.export_chrome_trace(str(path))
    by_launch: dict[int, Counter[str]] = {}
    events = [event for event in json.loads(path.read_text())["traceEvents"] if event.get("ph") == "X"]
    launches = {e["args"]["correlation"] for e in events if e["name"].startswith("cudaGraphLaunch")}
    for event in events:
        launch = event.get("args", {}).get("correlation")
        if event.get("cat") == "kernel" and launch in launches:
            by_launch.setdefault(launch, Counter())[event["name"]] += 1
    return list(by_launch.values()), outputs


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")
def test_the_graph_of_a_step_has_the_kernels_of_the_real_one(tmp_path):
    real, _ = _graphs(tmp_path, EAGLE3)
    drawn, outputs = _graphs(
        tmp_path, EAGLE3 | {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": RATES}
    )
    assert len(real) > 5 and sum(real[1].values()) > 100
    kinds = {frozenset(kernels.items()) for kernels in real}
    assert {frozenset(kernels.items()) for kernels in drawn} <= kinds
    counts = [output.speculation for output in outputs]
    drafts, accepted = (sum(getattr(c, name) for c in counts) for name in ("num_drafts", "num_accepted_tokens"))
    assert drafts < accepted < 2.4 * drafts, "1.7 are to be expected"
    assert all(c.is_synthetic for c in counts)
