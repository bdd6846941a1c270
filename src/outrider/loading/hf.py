"""JSON files of a local model directory, such as config.json. Names of models become paths in
`loading/model_source.py`."""

import json
from pathlib import Path
from typing import Any

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import CheckpointError
from outrider.loading.files import check_kinds
from outrider.loading.gguf.config import read_gguf_config
from outrider.loading.gguf.file import gguf_remedy, is_gguf, refuse_gguf

_QUANTIZATION_FILES = {"hf_quant_config.json": "modelopt", "quantize_config.json": "gptq"}
"""Files beside config.json -> `quant_method` of what they say."""


def read_json(directory: str | Path, file: str) -> dict[str, Any]:
    """The object in `directory`/`file`; `CheckpointError` where there is none."""
    refuse_gguf(directory)
    path = Path(directory) / file
    if not Path(directory).is_dir():
        raise CheckpointError(f"{str(directory)!r} is not a directory. Give a local directory with {file}.")
    check_kinds(Path(directory))
    if not path.is_file():
        other = "params.json"
        if (Path(directory) / other).is_file():
            raise CheckpointError(
                f"{str(directory)!r} has {other} and no {file}: the consolidated layout, with other names and heads"
                " whose rows are in another order, is not supported. Give a directory in the Hugging Face layout."
            )
        remedy = gguf_remedy(Path(directory)) or " Give a directory in the Hugging Face layout."
        raise CheckpointError(f"{str(directory)!r} has no {file}.{remedy}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}). Download it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, not an object. Download it again.")
    return values


def open_config(directory: str | Path) -> ConfigReader:
    """A reader of the directory's config.json. Some tools say in a file of its own how weights are quantised, which is
    read as its quantization_config."""
    values = read_json(directory, "config.json")
    if not any(values.get(key) for key in ("quantization_config", "compression_config")):
        for file, method in _QUANTIZATION_FILES.items():
            if (Path(directory) / file).is_file():
                values["quantization_config"] = {"quant_method": method} | read_json(directory, file)
    return ConfigReader(values, where=str(Path(directory) / "config.json"))


def open_model_config(path: str | Path) -> ConfigReader:
    """A reader of the config of a target or a draft model: that of a directory, or a GGUF file's metadata in the same
    form."""
    return ConfigReader(read_gguf_config(path), where=str(path)) if is_gguf(path) else open_config(path)
