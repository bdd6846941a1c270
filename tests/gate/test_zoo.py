"""The committed baselines of the shipped drafters: equal integers on their platform, rates within bounds elsewhere.

`outrider gate record` wrote them (`make gate-record`). Nothing here knows which platform runs the test.
"""

from pathlib import Path

import pytest

from outrider.core.errors import UnsupportedError
from outrider.gate.baseline import read_baseline
from outrider.gate.check import check
from outrider.gate.report import line
from outrider.gate.source import Source, prompts_for_check, settings_for_check
from outrider.platforms.base import select_platform

ROOT = Path(__file__).resolve().parents[2]
BASELINES = sorted(path for path in (ROOT / "tests/gate/baselines").glob("*.toml") if "accuracy" not in path.name)


def checked(path: Path, device: str):
    """The result of `outrider gate check`, with the repository's own models wherever it stands."""
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


FAST = {"zoo-eagle3-random", "zoo-mtp-k3"}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[] if path.stem in FAST else [pytest.mark.slow]) for path in BASELINES],
)
def test_the_zoo_on_the_cpu(path):
    result = checked(path, "cpu")
    assert result.verdict.passed, [result.verdict.cause, *map(line, result.verdict.differences), *result.notes]


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
