"""One file per family of models; each exports `Model`, `read_config` and the `ARCHITECTURES` it answers to."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch

from outrider.attention.caches.model_caches import CacheSpec
from outrider.core import plugins
from outrider.core.config_reader import ConfigReader
from outrider.core.errors import UnsupportedError
from outrider.core.model_config import ModelConfig, read_architecture
from outrider.layers.context import LayerContext
from outrider.layers.decoder import CausalLM
from outrider.loading.checkpoint import Checkpoint
from outrider.loading.dummy import fill_randomly
from outrider.loading.generation_config import read_generation_eos
from outrider.loading.hf import open_config
from outrider.loading.load import load_into


def families() -> dict[str, ModuleType]:
    """Architecture -> the file that has it, by listing this folder."""
    package = sys.modules[__name__]
    found: dict[str, ModuleType] = {}
    for name in plugins.names(package):
        module = plugins.find(package, name, what="model")
        found |= dict.fromkeys(module.ARCHITECTURES, module)
    return found


def find_family(architecture: str) -> ModuleType:
    """The file that has `architecture`; `UnsupportedError` lists those that there are."""
    known = families()
    if architecture not in known:
        raise UnsupportedError(
            f"config.json: architecture {architecture!r} is not supported. Supported: {', '.join(sorted(known))}."
        )
    return known[architecture]


def find_model(config: ModelConfig) -> type[CausalLM]:
    """The class for `config.architecture`."""
    model_class: type[CausalLM] = find_family(config.architecture).Model
    return model_class


def read_config(reader: ConfigReader) -> ModelConfig:
    """The config of a model, read by its family. `UnsupportedError` names every key that the family does not know."""
    config: ModelConfig = find_family(read_architecture(reader)).read_config(reader)
    reader.finish()
    return config


def read_model_config(directory: str | Path) -> ModelConfig:
    """The config of the model in `directory`. Its eos ids are those of generation_config.json, then those of
    config.json."""
    config = read_config(open_config(directory))
    ids = read_generation_eos(directory) + config.eos_token_ids
    return replace(config, eos_token_ids=tuple(dict.fromkeys(ids)))


def cache_specs(config: ModelConfig, context: LayerContext) -> tuple[CacheSpec, ...]:
    """The caches that the layers of a model with this config need, before any memory is allocated."""
    without_memory = replace(context, device=torch.device("meta"))
    return find_model(config)(config, without_memory, max_positions=1).cache_specs


def load_model(
    directory: str,
    config: ModelConfig,
    context: LayerContext,
    *,
    max_positions: int,
    load_format: str = "auto",
    seed: int = 0,
) -> CausalLM:
    """The model of `directory` with its weights; `load_format="dummy"` draws them from `seed` instead.

    A head that the files lack is tied to the embedding, whatever the config says.
    """
    model_class = find_model(config)
    if load_format == "dummy":
        model = model_class(config, context, max_positions=max_positions)
        fill_randomly(model, seed)
        return model
    checkpoint = Checkpoint(directory)
    if not any(name.endswith("lm_head.weight") for name in checkpoint.names):
        config = replace(config, tie_word_embeddings=True)
    model = model_class(config, context, max_positions=max_positions)
    skips = (*model.skips, *((model.mtp.prefix,) if model.mtp is not None else ()))
    tensors = (part for name, tensor in checkpoint.tensors() for part in model.split(name, tensor))
    load_into(model, tensors, where=directory, renames=model.renames, skips=skips)
    return model
