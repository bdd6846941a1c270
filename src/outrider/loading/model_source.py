"""Turns the names of models in the options of an engine into local paths: the zoo's, those of a hub, or paths already.

Call it once, before any process reads a file of the model.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from outrider.core.config import EngineConfig
from outrider.core.errors import CheckpointError
from outrider.core.zoo import is_zoo_name, shipped
from outrider.loading.gguf.file import is_gguf, require_gguf
from outrider.loading.hub_model import HubModel, is_hub_id


def with_local_files(config: EngineConfig) -> EngineConfig:
    """The options with local paths for target and drafter, whose files are downloaded where they are missing.

    Raises CheckpointError or ConfigError if a name leads to nothing.
    """
    has_weights = config.load_format != "dummy"
    source: dict[str, Any] = {"token": config.hf_token, "cache": config.download_dir}
    target = HubModel(name=config.model, revision=config.revision, **source)
    speculative = config.speculative
    drafter = speculative.options.get("model") if speculative is not None else None
    if speculative is not None and isinstance(drafter, str):
        head = HubModel(name=drafter, revision=speculative.revision, **source)
        path = local_path(head, has_weights=has_weights, is_drafter=True)
        speculative = replace(speculative, options={**speculative.options, "model": path})
    return replace(config, model=local_path(target, has_weights=has_weights), speculative=speculative, hf_token=None)


def local_path(model: HubModel, *, has_weights: bool = True, is_drafter: bool = False) -> str:
    """Path of a model's directory or GGUF file; arguments are those of `loading.hub.fetch`."""
    path = Path(model.name).expanduser()
    if path.exists():
        if is_gguf(path):
            require_gguf(path)
        return str(path)
    if is_gguf(path):
        raise CheckpointError(f"{model.name!r} does not exist. Check the path of the GGUF file.")
    if is_zoo_name(model.name):
        return shipped(model.name.partition("/")[2])
    if not is_hub_id(model.name):
        raise CheckpointError(
            f"{model.name!r} is not a directory, and cannot be the id of a model on a hub (org/name). Check the path."
        )
    if model.quantization:
        require_gguf(model.name)
    from outrider.loading.hub import fetch

    return fetch(model, has_weights=has_weights, is_drafter=is_drafter)
