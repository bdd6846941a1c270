"""The step never waits for the device: it runs where there are no values to wait for.

On the meta device a tensor has a shape and nothing else, so any read of a value on the host, and any shape that
depends on a value, raises. Prompt chunks, decode rows with drafts, penalties, log-probabilities and prefix-cache hits
ride together; only reading the results back (which does wait, one step later) is left out.
"""

import crowd as crowds
import pytest
import torch

from outrider import models, platforms
from outrider.core.config import engine_config
from outrider.core.plan import RowResult, StepResult
from outrider.core.request import Request
from outrider.engine.text import StopChecker
from outrider.runtime.worker import Worker
from outrider.scheduler.scheduler import Scheduler
from outrider.speculation import head
from outrider.speculation.drafters import mtp
from tiny_heads import random_head, save_speculators
from tiny_models import write_tiny_model

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


def _drafter(name: str, tmp_path) -> dict | None:
    if name == "eagle3":
        head = random_head(vocab_size=crowds.VOCAB, draft_vocab_size=crowds.VOCAB, tap_layers=(0, 1, 2))
        return {"method": "eagle3", "model": str(save_speculators(head, tmp_path / "head"))}
    if name == "draft_model":
        return {"method": name, "model": str(tmp_path / "target")}
    return {"method": name}


@pytest.mark.parametrize(
    ("family", "drafter"), [("qwen3", "ngram"), ("qwen3", "eagle3"), ("qwen3", "draft_model"), ("qwen3_5", "mtp")]
)
def test_no_step_reads_a_value(meta, tmp_path, family, drafter):
    write_tiny_model(tmp_path / "target", family, vocab_size=crowds.VOCAB)
    config = engine_config(
        str(tmp_path / "target"), device="meta", load_format="dummy", logits_digest=True, max_num_batched_tokens=60,
        speculative_config=_drafter(drafter, tmp_path), max_num_seqs=16,
    )  # fmt: skip
    worker = Worker(config)
    scheduler = Scheduler(
        num_blocks=worker.num_blocks, block_size=16, max_num_seqs=16, max_num_batched_tokens=60,
        num_drafts=config.num_speculative_tokens, num_lookahead=worker.num_lookahead, enable_prefix_caching=True,
        stop_checker=(checker := StopChecker(None)),
    )  # fmt: skip
    for index, case in enumerate([*crowds.crowd()[1:9], *crowds.crowd()[1:3], *crowds.crowd()[14:19]]):
        request = Request(
            request_id=str(index), prompt_token_ids=list(case.prompt), params=case.params, seed=1, eos_token_ids=(2,),
            max_total_tokens=len(case.prompt) + (case.params.max_tokens or 1),
            bad_words=tuple(tuple(word) for word in case.params.bad_words or ()),
        )  # fmt: skip
        request.speculation.num_accepted_tokens_per_pos = [0] * 16
        scheduler.add(request)
        checker.begin(request)
    num_steps = num_hits = 0
    while (plan := scheduler.plan()) is not None and num_steps < 14:
        num_steps += 1
        num_hits += sum(admission.last_cached_block >= 0 for admission in plan.admissions)
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
    assert num_steps == 14
    assert num_hits > 0
