"""One file per family of models; each exports `Model` and the `ARCHITECTURES` it answers to."""

import sys
from dataclasses import replace

import torch

from outrider.attention.caches.model_caches import CacheSpec
from outrider.core import plugins
from outrider.core.errors import UnsupportedError
from outrider.core.model_config import ModelConfig
from outrider.layers.context import LayerContext
from outrider.layers.decoder import CausalLM
from outrider.loading.checkpoint import Checkpoint
from outrider.loading.dummy import fill_randomly
from outrider.loading.load import load_into

_LATER = {
    "Qwen2ForCausalLM": "Qwen2",
    "DeepseekV3ForCausalLM": "latent attention, mixture of experts",
    "GptOssForCausalLM": "attention sinks, mixture of experts",
    "MistralForCausalLM": "Mistral",
    "Gemma3ForCausalLM": "Gemma 3",
    "Gemma3ForConditionalGeneration": "Gemma 3, vision",
    "Qwen2_5_VLForConditionalGeneration": "vision",
    "Qwen3VLForConditionalGeneration": "vision",
    "Qwen3VLMoeForConditionalGeneration": "vision, mixture of experts",
}
"""Known by name, not built yet."""


def architectures() -> dict[str, type[CausalLM]]:
    """Every architecture that is built, by listing this folder."""
    package = sys.modules[__name__]
    found: dict[str, type[CausalLM]] = {}
    for name in plugins.names(package):
        module = plugins.find(package, name, what="model")
        found |= dict.fromkeys(module.ARCHITECTURES, module.Model)
    return found


def find_model(config: ModelConfig) -> type[CausalLM]:
    """The class for `config.architecture`; `UnsupportedError` lists those that are built."""
    known = architectures()
    if config.architecture in known:
        return known[config.architecture]
    kind = f" ({_LATER[config.architecture]})" if config.architecture in _LATER else ""
    state = "is not built yet" if kind else "is not known"
    raise UnsupportedError(f"architecture {config.architecture!r}{kind} {state}. Built: {', '.join(sorted(known))}.")


def cache_specs(config: ModelConfig, context: LayerContext) -> tuple[CacheSpec, ...]:
    """What each layer of a model with this config keeps of earlier tokens, before any memory is allocated."""
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
