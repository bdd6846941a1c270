"""The commands and options of the command line, frozen: to add one is a decision, taken here."""

import sys
from typing import Any

import pytest

from outrider import cli
from outrider.cli.command_group import COMMANDS as OFFERED
from outrider.cli.command_group import load_command

RUNS_AN_ENGINE = ["--attention-backend", "--device", "--max-model-len", "--speculative-config", "model"]
RUNS_A_MODEL = [*RUNS_AN_ENGINE, "--config"]
HUB = ["--download-dir", "--hf-token", "--revision"]
MEASURES = [
    "--input-len",
    "--load-format",
    "--max-num-batched-tokens",
    "--output-json",
    "--output-len",
    "--seed",
    "--temperature",
    "--top-p",
]
GATE_RUN = ["--all-turns", "--max-tokens", "--seed", "--temperature"]

COMMANDS = {
    "generate": [
        *RUNS_A_MODEL,
        "--chat",
        "--compare",
        "--max-tokens",
        "--min-p",
        "--no-chat",
        "--no-compare",
        "--seed",
        "--stop",
        "--temperature",
        "--top-k",
        "--top-p",
        "-p",
        "--prompt",
    ],
    "serve": [
        *RUNS_A_MODEL,
        *HUB,
        "--allowed-hosts",
        "--allowed-origins",
        "--api-key",
        "--api-key-file",
        "--api-key-for-all-paths",
        "--block-size",
        "--chat-template",
        "--chat-template-content-format",
        "--drain-seconds",
        "--dtype",
        "--enable-prefix-caching",
        "--enforce-eager",
        "--generation-config",
        "--gpu-memory-utilization",
        "--host",
        "--limit-concurrency",
        "--load-format",
        "--log-level",
        "--log-requests",
        "--logits-digest",
        "--max-body-bytes",
        "--max-engine-restarts",
        "--max-header-bytes",
        "--max-header-count",
        "--max-num-batched-tokens",
        "--max-num-seqs",
        "--max-queued-requests",
        "--no-enable-prefix-caching",
        "--num-gpu-blocks-override",
        "--port",
        "--quantization",
        "--reasoning-parser",
        "--runner",
        "--scheduling-policy",
        "--seed",
        "--served-model-name",
        "--ssl-ca-certs",
        "--ssl-certfile",
        "--ssl-keyfile",
        "--ssl-keyfile-password",
        "--timeout-body",
        "--timeout-header",
        "--timeout-keep-alive",
        "--tool-call-parser",
        "--trust-request-chat-template",
    ],
    "chat": [*RUNS_A_MODEL, "--api-key", "--max-tokens", "--seed", "--system", "--temperature", "--url"],
    "info": RUNS_A_MODEL,
    "verify": [*RUNS_A_MODEL, "--output-json", "--quick"],
    "demo": [],
    "pull": [*HUB, "models"],
    "quantize": [*HUB, "--format", "--output", "-o", "model"],
    "bench latency": [
        *RUNS_A_MODEL,
        *MEASURES,
        "--batch-size",
        "--num-iters",
        "--num-iters-warmup",
        "--read-bandwidth",
    ],
    "bench throughput": [*RUNS_A_MODEL, *MEASURES, "--dataset-path", "--max-concurrency", "--num-prompts"],
    "bench serve": [
        "--base-url",
        "--burstiness",
        "--dataset-name",
        "--dataset-path",
        "--disable-shuffle",
        "--endpoint",
        "--extra-body",
        "--goodput",
        "--header",
        "--ignore-eos",
        "--input-len",
        "--max-concurrency",
        "--metric-percentiles",
        "--model",
        "--num-prompts",
        "--num-warmups",
        "--output-len",
        "--percentile-metrics",
        "--plot",
        "--random-range-ratio",
        "--request-rate",
        "--result-dir",
        "--result-filename",
        "--save-detailed",
        "--save-result",
        "--seed",
        "--temperature",
        "--tokenizer",
    ],
    "bench compare": ["--may-differ", "--output", "first", "second"],
    "bench host": ["--batch-size", "--num-iters", "--output-json", "model"],
    "gate record": [*RUNS_AN_ENGINE, *GATE_RUN, "--baseline", "--endpoint", "--prompts"],
    "gate check": [
        *RUNS_AN_ENGINE,
        *GATE_RUN,
        "--no-all-turns",
        "--baseline",
        "--endpoint",
        "--html",
        "--junit",
        "--prompts",
    ],
    "gate compare": [
        *RUNS_AN_ENGINE,
        *GATE_RUN,
        "--cost-ratio",
        "--k",
        "--prompts",
    ],
    "gate accuracy": [
        *RUNS_AN_ENGINE,
        "--baseline",
        "--few-shot",
        "--max-tokens",
        "--no-record",
        "--questions",
        "--record",
        "--threshold",
    ],
    "gate lanes": ["--file", "--format", "--nightly", "--no-nightly", "--since"],
}


def commands() -> dict[str, Any]:
    """Every command by the words that are typed for it."""
    found: dict[str, Any] = {}
    for name in OFFERED:
        command = load_command(name)
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {word}": inner[word] for word in inner}
    return found


def names_of(command: Any) -> list[str]:
    """Arguments by name, options as they are typed."""
    return sorted(name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))


def test_commands_and_options_are_those_that_were_decided() -> None:
    found = {name: names_of(command) for name, command in commands().items()}
    assert found == {name: sorted(names) for name, names in COMMANDS.items()}


def test_every_command_and_option_has_a_line_of_help() -> None:
    for name, command in commands().items():
        assert command.help, name
        for parameter in command.params:
            text = getattr(parameter, "help", None)
            assert text and text.endswith("."), f"{name}: {parameter.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_names_are_whole_at_80_columns(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["outrider", *name.split(), "--help"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert [option for option in names_of(commands()[name]) if option not in shown] == []
    assert max(map(len, shown.splitlines())) <= 80
