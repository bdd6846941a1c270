"""`outrider verify`: the verdict of a model, its table, JSON and exit code."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from outrider import LLM, cli
from outrider.device.assemble import Assembler
from outrider.invariance.check import Finding
from outrider.kernels import load_kernels
from outrider.kernels.reference import norm
from outrider.verify import engine_check, run
from outrider.verify.engine_check import EngineFinding, check_engine
from outrider.verify.verdict import Verdict

ZOO = Path(__file__).parents[2] / "zoo"


def command(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["outrider", "verify", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_quick_check_says_yes_and_what_was_tried(monkeypatch, capsys, tmp_path):
    path = tmp_path / "verdict.json"
    assert command(monkeypatch, "zoo/tiny", "--quick", "--output-json", str(path)) == 0
    shown = capsys.readouterr().out
    assert "exact: every form gave the same bits (short form" in shown and "paged_attention" in shown
    found = json.loads(path.read_text())
    assert found["exact"] is True and found["quick"] is True and found["engine"] == []
    assert found["platform"]["device"] == "cpu" and found["platform"]["attention_backend"] == "oracle"
    assert {"linear", "choose", "draft_choose"} <= {kernel["kernel"] for kernel in found["kernels"]}


@pytest.mark.slow
def test_a_leak_in_a_kernel_is_a_no_with_exit_code_1(monkeypatch, capsys, tmp_path):
    """The last bit of a norm follows the number of rows, as where a reduction is split otherwise."""
    load_kernels(("reference",))  # modules that are imported under the leak would keep it
    original = norm.rms_norm

    def rms_norm(x, weight, eps, **flags):
        out = original(x, weight, eps, **flags)
        return torch.nextafter(out, out + 1) if x.shape[0] > 4 else out

    monkeypatch.setattr(norm, "rms_norm", rms_norm)
    path = tmp_path / "verdict.json"
    assert command(monkeypatch, "zoo/tiny", "--quick", "--output-json", str(path)) == 1
    assert "NOT EXACT: " in capsys.readouterr().out
    wrong = [kernel for kernel in json.loads(path.read_text())["kernels"] if kernel["differences"]]
    assert [kernel["kernel"] for kernel in wrong] == ["add_rms_norm", "rms_norm"]  # the one calls the other
    assert "row 0 alone: 1 of 1 rows" in wrong[0]["differences"][0]


def test_a_verdict_is_no_if_anything_differs():
    def verdict(*, kernel=(), engine=()):
        return Verdict(
            model="m", platform={}, device="a device", is_quick=False, seconds=1.0,
            kernels=[Finding("linear", "reference", 1, 9, 3, list(kernel))],
            engine=[EngineFinding("alone", 4, 60, list(engine))],
        )  # fmt: skip

    def shown(found):
        console = Console(width=100, record=True, file=io.StringIO())
        console.print(found.shown())
        return console.export_text()

    assert verdict().passes and "exact: every form gave the same bits" in shown(verdict())
    assert "9 (of 12)" in shown(verdict()) and "4 (of 64)" in shown(verdict())
    for wrong in (verdict(kernel=["row 5"]), verdict(engine=["request 3"])):
        assert not wrong.passes and wrong.as_dict()["exact"] is False and "NOT EXACT: 1 difference (" in shown(wrong)


def engine(**options) -> LLM:
    return LLM(str(ZOO / "tiny"), skip_tokenizer_init=True, logits_digest=True, **options)


def test_the_engine_check_stops_where_time_runs_out(monkeypatch):
    monkeypatch.setattr(engine_check, "MAX_TOKENS", 3)
    monkeypatch.setattr(engine_check, "MOST_PROMPT", 24)
    llm = engine(speculative_config=run.NGRAM, max_num_seqs=3)
    found = check_engine(llm, seconds=0.0, clock=lambda: 0.0)
    assert [(way.num_requests, way.num_left_out) for way in found[:2]] == [(4, 60), (4, 0)]
    assert [way.name for way in found if "with drafts" in way.name] == ["in a crowd, with drafts", "alone, with drafts"]
    assert not any(way.differences for way in found)


@pytest.mark.slow
def test_the_engine_check_finds_a_leak_that_is_not_in_a_kernel(monkeypatch):
    """Padding writes into blocks of requests."""
    original = Assembler.build

    def build(self, layout, table):
        batch = original(self, layout, table)
        (group,) = batch.forward.groups.values()
        slots = torch.where(group.slots == 0, 16 + torch.arange(len(group.slots)) % 16, group.slots)
        object.__setattr__(group, "slots", slots)
        return batch

    monkeypatch.setattr(Assembler, "build", build)
    found = check_engine(engine(speculative_config=run.NGRAM), seconds=3.0)
    assert any(way.differences for way in found)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tiny", "tiny-hybrid"])
def test_the_zoo_is_exact_here(model):
    assert run.verify(str(ZOO / model)).passes
