"""The step never waits for the device: it runs where there are no values to wait for.

On the meta device a tensor has a shape and nothing else, so any read of a value on the host, and any shape that
depends on a value, raises. Prompt chunks, decode rows with drafts, penalties, log-probabilities, prefix-cache hits and
snapshots of states are combined; only reading the results back (which does wait, one step later) is left out.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from outrider import models, platforms
from outrider.core.config import engine_config
from outrider.core.plan import RowResult, StepResult
from outrider.core.request import Request
from outrider.engine.text import OutputTexts
from outrider.kernels.reference import experts
from outrider.runtime.worker import Worker
from outrider.scheduler.scheduler import Scheduler
from outrider.speculation import head
from outrider.speculation.drafters import mtp
from tests.support import request_mix
from tests.support.tiny_heads import random_eagle_head, random_head, save_speculators
from tests.support.tiny_models import HYBRIDS, write_tiny_model
from tests.support.tiny_mtp import write_mimo

META = '''"""A device without values."""

import torch

from outrider.platforms.cpu import Platform as Cpu


class Platform(Cpu):
    name = "meta"

    @property
    def device(self):
        return torch.device("meta")
'''


@pytest.fixture
def meta(tmp_path, monkeypatch):
    folder = tmp_path / "platforms"
    folder.mkdir()
    (folder / "meta.py").write_text(META)
    monkeypatch.setattr(platforms, "__path__", [*platforms.__path__, str(folder)])
    for module in (models, head, mtp):
        monkeypatch.setattr(module, "fill_randomly", lambda module, seed: None)


EVERYTHING = (*request_mix.make_cases()[1:9], *request_mix.make_cases()[1:3], *request_mix.make_cases()[14:19])
FEW = (*request_mix.make_cases()[1:4], *request_mix.make_cases()[1:3], request_mix.make_cases()[6])
"""Families differ in layers and drafters only, so most need not meet every sampling parameter."""

RUNS = {
    "qwen3": ("draft_model", EVERYTHING, 14),
    "llama": ("eagle", FEW, 8),
    "qwen3_moe": ("eagle3", FEW, 8),
    "mimo": ("mtp", FEW, 8),
    **dict.fromkeys(HYBRIDS, ("mtp", FEW, 8)),
}
"""Family -> drafter, requests, steps."""


def write(family: str, directory: Path) -> None:
    options: dict[str, Any] = {"vocab_size": request_mix.VOCAB}
    if family in HYBRIDS:
        options |= {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}
    if family == "mimo":
        write_mimo(directory, **options)
    else:
        write_tiny_model(directory, family, **options)


def speculation(name: str, directory: Path) -> dict[str, Any]:
    """speculative_config of a drafter."""
    config = {"method": name}
    if name == "eagle3":
        head = random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=request_mix.VOCAB, tap_layers=(0, 1, 2))
        config["model"] = str(save_speculators(head, directory / "head"))
    if name == "eagle":
        random_eagle_head(directory / "head", vocab_size=request_mix.VOCAB)
        config["model"] = str(directory / "head")
    if name == "draft_model":
        config["model"] = str(directory / "target")
    return config


FAST = {("qwen3", "ngram"), ("qwen3_moe", "eagle3"), ("qwen3_5", "mtp")}
PAIRS = [("qwen3", "ngram"), *((name, run[0]) for name, run in RUNS.items())]


@pytest.mark.parametrize(
    ("family", "drafter"), [pytest.param(*pair, marks=[] if pair in FAST else [pytest.mark.slow]) for pair in PAIRS]
)
def test_no_step_reads_a_value(meta, tmp_path, monkeypatch, family, drafter):
    _, cases, most_steps = RUNS[family]
    # plain PyTorch finds an expert's tokens by value, where nothing waits; what the step does around it is seen here
    monkeypatch.setattr(experts, "experts", lambda x, gate_up, down, routing: torch.empty_like(x))
    write(family, tmp_path / "target")
    config = engine_config(
        str(tmp_path / "target"), device="meta", load_format="dummy", logits_digest=True, max_num_batched_tokens=60,
        speculative_config=speculation(drafter, tmp_path), max_num_seqs=16,
    )  # fmt: skip
    worker = Worker(config)
    scheduler = Scheduler(
        groups=worker.groups, num_blocks=worker.num_blocks, max_num_seqs=16,
        max_num_batched_tokens=60, num_drafts=config.num_speculative_tokens, num_lookahead=worker.num_lookahead,
        enable_prefix_caching=True, stop_rule=(texts := OutputTexts(None)), num_snapshots=worker.num_snapshots,
    )  # fmt: skip
    for index, case in enumerate(cases):
        request = Request(
            request_id=str(index), prompt_token_ids=tuple(case.prompt), params=case.params, seed=1, eos_token_ids=(2,),
            max_total_tokens=len(case.prompt) + (case.params.max_tokens or 1),
            bad_words=tuple(tuple(word) for word in case.params.bad_words or ()),
        )  # fmt: skip
        scheduler.add(request)
        texts.begin(request)
    num_steps = num_hits = num_saves = num_loads = 0
    while num_steps < most_steps and (plan := scheduler.plan()) is not None:
        num_steps += 1
        num_hits += sum(admission.last_cached_block >= 0 for admission in plan.admissions)
        num_loads += sum(admission.snapshot_id >= 0 for admission in plan.admissions)
        num_saves += len(plan.state_saves)
        handle = worker.step(plan)
        assert handle._packed.data.device == torch.device("meta")
        rows = [
            RowResult(
                request_id=row.request_id, epoch=row.epoch, num_drafts=row.num_drafts, num_accepted=0,
                token_ids=(7,) if row.does_sample else (),
            )
            for row in plan.rows
        ]  # fmt: skip
        scheduler.settle(plan, StepResult(step_id=plan.step_id, rows=tuple(rows)))
    assert num_steps == most_steps
    assert num_hits > 0
    assert (num_saves > 0) == (num_loads > 0) == (family in HYBRIDS)
