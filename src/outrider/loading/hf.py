"""config.json and generation_config.json of a local model directory. Nothing is ever downloaded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from outrider.core.errors import CheckpointError
from outrider.core.model_config import ModelConfig, token_ids


def read_json(directory: str | Path, file: str) -> dict[str, Any]:
    """The object in `directory`/`file`; `CheckpointError` where there is none."""
    path = Path(directory) / file
    if not Path(directory).is_dir():
        raise CheckpointError(
            f"{str(directory)!r} is not a directory. Nothing is downloaded: give a local directory with {file}."
        )
    if not path.is_file():
        raise CheckpointError(f"{str(directory)!r} has no {file}. Give a directory in the Hugging Face layout.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}). Download it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, not an object. Download it again.")
    return values


def read_model_config(directory: str | Path) -> ModelConfig:
    """The model's config. Its eos ids are those of generation_config.json, then those of config.json."""
    config = ModelConfig.from_dict(read_json(directory, "config.json"))
    if not (Path(directory) / "generation_config.json").is_file():
        return config
    value = read_json(directory, "generation_config.json").get("eos_token_id")
    ids = token_ids(value, where="generation_config.json: eos_token_id")
    return replace(config, eos_token_ids=tuple(dict.fromkeys(ids + config.eos_token_ids)))
