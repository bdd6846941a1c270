"""`outrider bench serve` and `compare` on the server of this folder: a sweep with limits, saved and compared."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outrider.cli import app
from outrider.core.errors import ConfigError
from tests.support.server_under_test import ServerUnderTest

pytestmark = pytest.mark.slow


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["bench", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_sweep_is_measured_saved_and_compared(server: ServerUnderTest, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(
            "serve",
            "--base-url",
            server.url,
            "--num-prompts",
            6,
            "--input-len",
            12,
            "--output-len",
            10,
            "--ignore-eos",
            "--request-rate",
            "8,inf",
            "--goodput",
            "ttft:60000 tpot:60000",
            "--seed",
            seed,
            "--save-result",
            "--result-dir",
            tmp_path,
            "--result-filename",
            f"{name}.json",
        )
    runs = json.loads((tmp_path / "a.json").read_text())["runs"]
    for measured in runs:
        assert (measured["completed"], measured["good_requests"], measured["total_output_tokens"]) == (6, 6, 60)
        assert measured["request_goodput"] == measured["request_throughput"] and measured["metrics_note"] is None
        assert measured["spec_decode_acceptance_length"] >= 1.0
    output = run("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert output.count("| output tokens/s |") == 2
    with pytest.raises(ConfigError, match="they differ in seed: 0 and 1; requests_sha256: "):
        run("compare", tmp_path / "a.json", tmp_path / "c.json")
