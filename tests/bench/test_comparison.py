"""`bench compare`: figures of two saved results side by side, and results that are not comparable."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from outrider.bench.serve.setting import DECISIVE
from outrider.cli import app
from outrider.core.errors import ConfigError

from .streaming_server import StreamingServer, serving

OTHER = {
    "model_id": "another", "endpoint": "/v1/chat/completions", "dataset_name": "sharegpt", "num_prompts": 7,
    "num_warmups": 1, "seed": 5, "request_rate": 3.5, "burstiness": 0.5, "max_concurrency": 2,
    "goodput": {"ttft": 200.0}, "request_fields": {"temperature": 0.7}, "requests_sha256": "0" * 64,
}  # fmt: skip
"""Another value for each setting."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Saved results of one run, and of a sweep of two rates."""
    folder = tmp_path_factory.mktemp("measured")
    common = ["--num-prompts", "4", "--input-len", "5", "--output-len", "9", "--save-result", "--result-dir", folder]
    with serving(StreamingServer()) as url:
        for name, rate in (("run", "inf"), ("sweep", "100,inf")):
            options = ["--base-url", url, "--request-rate", rate, "--result-filename", name, *common]
            assert CliRunner().invoke(app, ["bench", "serve", *map(str, options)]).exit_code == 0
    return json.loads((folder / "run").read_text()), json.loads((folder / "sweep").read_text())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(first: object, second: object, *options: str) -> str:
    """The printed text of a comparison of two contents."""
    for name, content in (("a.json", first), ("b.json", second)):
        Path(name).write_text(json.dumps(content))
    result = CliRunner().invoke(app, ["bench", "compare", "a.json", "b.json", *options])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def cells(output: str, name: str) -> list[str]:
    (line,) = [line for line in output.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_figures_are_side_by_side_with_their_ratio(measured: tuple[dict[str, Any], dict[str, Any]]) -> None:
    run, _ = measured
    faster = {**run, "date": "later", "base_url": "http://elsewhere", "output_throughput": 2 * run["output_throughput"],
              "p99_ttft_ms": run["p99_ttft_ms"] / 4, "failed": 1, "std_itl_ms": None}  # fmt: skip
    output = compare(run, faster, "--output", "both.json")
    assert "| | a | b | ratio |" in output
    rate = run["output_throughput"]
    assert cells(output, "output tokens/s") == [f"{rate:.3f}", f"{2 * rate:.3f}", "2.000"]
    assert cells(output, "P99 TTFT, ms")[2] == "0.250" and cells(output, "failed requests") == ["0", "1", "–"]
    assert cells(output, "std ITL, ms")[1:] == ["–", "–"]
    assert cells(output, "acceptance length")[2] == "1.000", "the server counts speculation"
    saved = json.loads(Path("both.json").read_text())
    (pair,) = saved["pairs"]
    assert pair["figures"]["output tokens/s"] == {"first": rate, "second": 2 * rate, "ratio": 2.0}
    assert saved["names"] == ["a", "b"] and pair["differs"] == {} and pair["request_rate"] == "inf"


def test_a_sweep_is_compared_rate_by_rate(measured: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, sweep = measured
    output = compare(sweep, sweep, "--output", "both.md")
    assert [line for line in output.splitlines() if line.startswith("#")] == ["## 100 requests/s", "## inf requests/s"]
    assert output.replace("written: both.md", "").strip() in Path("both.md").read_text()


def test_every_setting_has_another_value_here() -> None:
    assert OTHER.keys() == set(DECISIVE)


@pytest.mark.parametrize("key", DECISIVE)
def test_a_setting_that_differs_is_refused_by_name(key: str, measured: tuple[dict[str, Any], dict[str, Any]]) -> None:
    run, _ = measured
    other = {**run, key: OTHER[key]}
    with pytest.raises(ConfigError, match=f"they differ in {key}: .*--may-differ {key}") as refusal:
        compare(run, other)
    assert not any(f"--may-differ {name}" in str(refusal.value) for name in DECISIVE if name != key)
    output = compare(run, other, "--may-differ", key)
    assert f"{key} differs: {json.dumps(run[key])}, {json.dumps(OTHER[key])}" in output


@pytest.mark.parametrize("key", DECISIVE)
def test_two_real_runs_differ_where_an_option_differs(key: str) -> None:
    """Each setting is really in the file, with the value that the run had."""
    options = {
        "model_id": ["--model", "m"], "endpoint": ["--endpoint", "/v1/chat/completions", "--tokenizer", str(ZOO)],
        "dataset_name": ["--dataset-name", "spec_bench", "--dataset-path", str(PROMPTS)],
        "num_prompts": ["--num-prompts", "3"], "num_warmups": ["--num-warmups", "1"], "seed": ["--seed", "4"],
        "request_rate": ["--request-rate", "500"], "burstiness": ["--burstiness", "2"],
        "max_concurrency": ["--max-concurrency", "1"], "goodput": ["--goodput", "ttft:9"],
        "request_fields": ["--extra-body", '{"top_k": 2}'], "requests_sha256": ["--random-range-ratio", "0.5"],
    }[key]  # fmt: skip
    with serving(StreamingServer(step_seconds=0.0)) as url:
        for name, further in (("a.json", []), ("b.json", options)):
            common = ["--base-url", url, "--num-prompts", "2", "--output-len", "3", "--save-result"]
            result = CliRunner().invoke(app, ["bench", "serve", *common, "--result-filename", name, *further])
            assert result.exit_code == 0, result.output
    refusal = CliRunner().invoke(app, ["bench", "compare", "a.json", "b.json"]).exception
    assert isinstance(refusal, ConfigError) and f"{key}: " in str(refusal)


ZOO = Path(__file__).parents[2] / "zoo" / "tiny"
PROMPTS = ZOO.parent / "prompts.jsonl"


def test_runs_that_do_not_pair_up_are_refused(measured: tuple[dict[str, Any], dict[str, Any]]) -> None:
    run, sweep = measured
    with pytest.raises(ConfigError, match=r"a.json has 1 runs and b.json has 2"):
        compare(run, sweep)
    with pytest.raises(ConfigError, match=r"they differ in request_rate: 100.0 and \"inf\""):
        compare(sweep, {"runs": sweep["runs"][::-1]})


@pytest.mark.parametrize("content", [{}, [], 3, {"runs": []}, {"runs": [4]}, {"output_throughput": 3.5}])
def test_a_file_without_settings_is_refused(content: object, measured: tuple[dict[str, Any], dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match=r"b\.json does not say with which settings it was measured"):
        compare(measured[0], content)


def test_other_mistakes_are_named(measured: tuple[dict[str, Any], dict[str, Any]]) -> None:
    run, _ = measured
    with pytest.raises(ConfigError, match="--may-differ 'port' is not a setting"):
        compare(run, run, "--may-differ", "port")
    with pytest.raises(ConfigError, match=r"--output='both.txt' must end in .md or .json"):
        compare(run, run, "--output", "both.txt")
    Path("broken.json").write_text("{")
    for name in ("broken.json", "none.json"):
        result = CliRunner().invoke(app, ["bench", "compare", "a.json", name])
        assert isinstance(result.exception, ConfigError) and f"{name} cannot be read" in str(result.exception)
