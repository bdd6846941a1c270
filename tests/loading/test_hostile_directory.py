"""Directories of models that somebody made to do harm: each gives one clear error, soon, and no memory is taken."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

from outrider.core.errors import CheckpointError, ConfigError, OutriderError
from outrider.engine.tokenizer import Tokenizer
from outrider.loading.checkpoint import INDEX, PICKLE, SINGLE, Checkpoint
from outrider.loading.hf import read_json
from tests.support.paged_runner import load_tiny
from tests.support.tiny_models import write_tiny_model

OPENED = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    "special_tokens_map.json", "added_tokens.json", "hf_quant_config.json", SINGLE, INDEX, PICKLE,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    write_tiny_model(directory)
    return directory


@pytest.fixture
def directory(tmp_path: Path, model: Path) -> Path:
    for path in model.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.parametrize("name", OPENED)
def test_pipes_are_not_waited_for(directory: Path, name: str) -> None:
    (directory / name).unlink(missing_ok=True)
    os.mkfifo(directory / name)
    for read in (Checkpoint, lambda path: read_json(path, "config.json"), load_tiny):
        with pytest.raises(CheckpointError, match=f"{name} is a named pipe, not a file"):
            read(directory)
    if name != "tokenizer.json":
        (directory / "tokenizer.json").write_text("{}")
        with pytest.raises(CheckpointError, match="is a named pipe"):
            Tokenizer(directory)


def test_devices_sockets_and_directories_are_not_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / SINGLE).unlink()
    (directory / SINGLE).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="is a device"):
        Checkpoint(directory)
    (directory / SINGLE).unlink()
    monkeypatch.chdir(directory)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(SINGLE)
        with pytest.raises(CheckpointError, match="is a socket"):
            Checkpoint(directory)
    (directory / SINGLE).unlink()
    (directory / SINGLE).mkdir()
    with pytest.raises(CheckpointError, match="holds neither"):
        Checkpoint(directory)


@pytest.mark.parametrize(
    "file", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", 7, None, "x\0"]
)
def test_an_index_names_files_of_its_own_directory_only(directory: Path, file: object) -> None:
    (directory / INDEX).write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(CheckpointError):
        Checkpoint(directory)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"vocab_size": 2_000_000_000}, "config.json asks for"),
        ({"hidden_size": 4_000_000}, "config.json asks for"),
        ({"intermediate_size": 2**31 - 1}, "config.json asks for"),
        ({"hidden_size": 2**31 - 1, "vocab_size": 2**31 - 1}, "config.json asks for"),
        ({"num_hidden_layers": 100_000_000}, "num_hidden_layers=100000000 must be .* at most 4096"),
        ({"num_hidden_layers": 4096}, "num_hidden_layers=4096, and the files hold"),
        ({"max_position_embeddings": 2**31 - 1}, "rope table for 2147483647 positions"),
    ],
)
def test_sizes_are_compared_with_the_files_before_memory_is_taken(directory: Path, fields: dict, says: str) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text()) | fields
    path.unlink()
    path.write_text(json.dumps(config))
    begin = time.monotonic()
    with pytest.raises((CheckpointError, ConfigError), match=says) as refused:
        load_tiny(directory, max_positions=config["max_position_embeddings"])
    assert isinstance(refused.value, OutriderError) and len(str(refused.value)) < 2000
    assert time.monotonic() - begin < 10
