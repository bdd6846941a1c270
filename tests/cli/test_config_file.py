"""Options from a YAML file, and the groups of options in the help of `serve`."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from outrider import cli
from outrider.cli.command_group import load_command
from outrider.cli.serve import PANELS
from outrider.config_file import read_config
from outrider.core.errors import ConfigError


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """(engine options, server options) of each server that would have been started."""
    found: list[tuple[Any, Any]] = []
    monkeypatch.setattr("outrider.server.serve.serve", lambda config, options, console: found.append((config, options)))
    return found


def serve(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["outrider", "serve", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0


def test_a_file_gives_options_and_the_command_line_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[tuple[Any, Any]]
) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(
        "model: /some/model\nport: 8123\nmax-num-seqs: 5\nenforce_eager: true\napi_key: [a, b]\n"
        "speculative_config: {method: ngram, num_speculative_tokens: 2}\nhost:\n"
    )
    serve(monkeypatch, "--config", path)
    serve(monkeypatch, "/other/model", "--config", path, "--port", 9, "--api-key", "c", "--speculative-config", "none")
    (config, options), (config_2, options_2) = started
    assert (config.model, config.max_num_seqs, config.enforce_eager) == ("/some/model", 5, True)
    assert (config.speculative.method, config.num_speculative_tokens) == ("ngram", 2)
    assert (options.port, options.host, options.served_model_names) == (8123, "127.0.0.1", ("/some/model",))
    assert (config_2.model, config_2.max_num_seqs, config_2.speculative) == ("/other/model", 5, None)
    assert options_2.port == 9
    assert json.dumps(sorted(options.api_keys)) == '["a", "b"]' and list(options_2.api_keys) == ["c"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prt: 1\n", "'prt' is not an option of this command. Options: host, port."),
        ("- port\n", "is not a mapping of options"),
        ("port: [1\n", "is not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=f"--config {path}.*{words.replace('.', '[.]')}"):
        read_config(path, known={"port", "host"})
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.yaml", known={"port"})


def test_every_option_of_serve_has_its_group_and_ten_come_first() -> None:
    options = [parameter for parameter in load_command("serve").params if parameter.param_type_name == "option"]
    listed = [name for names in PANELS.values() for name in names]
    assert sorted(listed) == sorted(parameter.name for parameter in options), "group a new option in cli/serve.py"
    assert [parameter.name for parameter in options] == listed
    assert {parameter.rich_help_panel for parameter in options[:10]} == {"Most used"}
    assert options[10].rich_help_panel != "Most used"
