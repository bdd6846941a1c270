"""Devices without tests of their own: an engine checks its kernels once, and is exact if they pass. The device is a
CPU that is declared so."""

import json
import logging
from pathlib import Path

import pytest
import torch

from outrider import LLM
from outrider.engine import start_check
from outrider.invariance.check import Finding
from outrider.invariance.memory import FOLDER, KernelVerdict, keep_verdict, read_verdict, verdict_path
from outrider.kernels import load_kernels
from outrider.kernels.reference import norm
from outrider.platforms.cpu import Platform
from outrider.verify import run
from tests.support.log_lines import log_lines

TINY = str(Path(__file__).parents[2] / "zoo" / "tiny")


@pytest.fixture
def unseen(monkeypatch, tmp_path):
    """This CPU, as a device without tests; verdicts go to a folder of the test."""
    monkeypatch.setattr(Platform, "is_exact", False)
    monkeypatch.setattr(Platform, "is_checked_at_start", True)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


@pytest.fixture
def checks(monkeypatch):
    """Replaces the checks by their results, and counts them."""
    made: list[list[Finding]] = []
    results = [Finding("linear", "reference", 1, 7)]

    def check_kernels(calls, limits, *, seconds, is_quick):
        assert calls and is_quick
        made.append(results)
        return results

    monkeypatch.setattr(start_check, "check_kernels", check_kernels)
    return made, results


def engine():
    return LLM(TINY, device="cpu", skip_tokenizer_init=True).engine


def exactness(engine):
    return dict(engine.describe())["exact"]


def test_a_seen_device_is_exact_without_a_check(checks):
    made, _ = checks
    found = engine()
    assert found.worker.is_exact and made == [] and found.worker.verdict is None


def test_an_unseen_device_is_checked_once_and_is_exact_then(unseen, checks):
    made, _ = checks
    with log_lines(logging.INFO) as lines:
        first = engine()
    assert first.worker.is_exact and first.stats().is_exact and len(made) == 1
    assert any("1 kernels were checked on this CPU" in line for line in lines)
    assert "kernels passed the short check on this device" in exactness(first)
    assert engine().worker.is_exact and len(made) == 1, "the verdict is remembered"
    (file,) = (unseen / "verdicts").iterdir()
    assert json.loads(file.read_text())["key"]["torch"] == torch.__version__


def test_a_device_that_fails_is_not_exact_and_says_why(unseen, checks):
    _, results = checks
    results[0].differences.append("x[504, 256], 17 rows: 3 of 17 rows differ")
    with log_lines() as lines:
        engines = [engine(), engine()]
    for found in engines:
        assert not found.worker.is_exact and not found.stats().is_exact
        assert "NO: kernels failed their check on this device, linear: x[504, 256]" in exactness(found)
    (line,) = lines
    assert "so the engine is not: linear: x[504, 256], 17 rows" in line


def test_other_versions_and_other_models_are_other_verdicts(unseen, checks, monkeypatch):
    made, _ = checks
    engine()
    original = Platform.key
    monkeypatch.setattr(Platform, "key", lambda self, dtype: original(self, dtype) | {"torch": "9.9.9"})
    engine()
    assert len(made) == 2
    LLM(str(Path(TINY).parent / "tiny-draft"), device="cpu", skip_tokenizer_init=True)
    assert len(made) == 3


def test_a_damaged_verdict_is_none(unseen):
    key = {"device": "a"}
    keep_verdict(key, KernelVerdict(passes=True, is_quick=True))
    assert read_verdict(key) == KernelVerdict(passes=True, is_quick=True)
    path = verdict_path(key)
    for text in ("", "[]", "{}", '{"key": {"device": "b"}, "passes": true, "quick": true, "differences": []}'):
        path.write_text(text)
        assert read_verdict(key) is None


def test_a_folder_that_cannot_be_written_is_a_warning(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(FOLDER, str(tmp_path / "file"))
    with log_lines() as lines:
        keep_verdict({"device": "a"}, KernelVerdict(passes=True, is_quick=True))
    (line,) = lines
    assert "is not kept: " in line and f"Set {FOLDER} to a folder." in line
    assert read_verdict({"device": "a"}) is None


@pytest.mark.slow
def test_the_check_at_start_sees_a_leak_and_verify_replaces_its_verdict(unseen, monkeypatch):
    load_kernels(("reference",))  # modules that are imported under the leak would keep it
    original = norm.rms_norm

    def rms_norm(x, weight, eps, **flags):
        out = original(x, weight, eps, **flags)
        return torch.nextafter(out, out + 1) if x.shape[0] > 4 else out

    with log_lines() as lines, monkeypatch.context() as leak:
        leak.setattr(norm, "rms_norm", rms_norm)
        assert not engine().worker.is_exact
    assert not engine().worker.is_exact, "it is remembered"
    assert run.verify(TINY, quick=True, device="cpu").passes
    assert engine().worker.is_exact
    assert len(lines) == 1 and "kernels are not exact on this CPU" in lines[0]
