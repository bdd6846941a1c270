"""The committed baselines of the shipped drafters: equal integers on their platform, rates within bounds elsewhere.

`outrider gate record` wrote them (`make gate-record`). Nothing here knows which platform runs the test.
"""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outrider.cli import app
from outrider.core.errors import UnsupportedError
from outrider.gate.baseline import read_baseline
from outrider.gate.check import check
from outrider.gate.report import line
from outrider.gate.source import Source, prompts_for_check, settings_for_check
from outrider.platforms.base import select_platform

ROOT = Path(__file__).resolve().parents[2]
BASELINES = sorted(path for path in (ROOT / "tests/gate/baselines").glob("*.toml") if "accuracy" not in path.name)


def checked(path: Path, device: str):
    """The result of `outrider gate check`, with the models of this checkout."""
    baseline = read_baseline(path)
    recorded = baseline.settings.speculative_config
    speculative = {**recorded, **({"model": str(ROOT / recorded["model"])} if "model" in recorded else {})}
    settings = settings_for_check(
        baseline,
        model=str(ROOT / baseline.settings.model),
        prompts=str(ROOT / baseline.settings.prompts),
        speculative_config=speculative,
    )
    measurement = Source(endpoint=None, device=device).measure(settings, prompts_for_check(settings))
    return check(baseline, measurement, title=path.stem)


def test_the_zoo_has_baselines():
    assert {path.stem for path in BASELINES} == {
        "zoo-eagle3", "zoo-eagle3-random", "zoo-ngram", "zoo-mtp-k1", "zoo-mtp-k3",
    }  # fmt: skip
    for path in BASELINES:
        assert any(entry.key["device"] == "cpu" for entry in read_baseline(path).entries)


FAST = {"zoo-mtp-k3"}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[] if path.stem in FAST else [pytest.mark.slow]) for path in BASELINES],
)
def test_the_zoo_on_the_cpu(path):
    result = checked(path, "cpu")
    assert result.verdict.passed, [result.verdict.cause, *map(line, result.verdict.differences), *result.notes]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("model", "speculative", "baseline"),
    [
        ("tiny", {"method": "eagle3", "model": str(ROOT / "zoo/tiny-eagle3")}, "zoo-accuracy"),
        ("tiny-hybrid", {"method": "mtp"}, "zoo-hybrid-accuracy"),
    ],
)
def test_the_zoo_answers_as_recorded(model, speculative, baseline):
    """The accuracy checks of `make gate`: 48 questions, with and without drafts."""
    arguments = [
        "gate", "accuracy", str(ROOT / "zoo" / model),
        "--speculative-config", json.dumps(speculative | {"num_speculative_tokens": 3}),
        "--questions", str(ROOT / "zoo/questions.jsonl"), "--max-tokens", "200",
        "--baseline", str(ROOT / f"tests/gate/baselines/{baseline}.toml"),
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


@pytest.mark.gpu
@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_the_zoo_on_the_gpu(path):
    """Equal integers where `make gate-record DEVICE=cuda` has added the card's entry, else the CPU's bounds."""
    try:
        select_platform("cuda")
    except UnsupportedError as error:
        pytest.skip(str(error))
    result = checked(path, "cuda")
    assert result.verdict.passed, [result.verdict.cause, *map(line, result.verdict.differences), *result.notes]
