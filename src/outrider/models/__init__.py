"""One file per family of models; each exports `Model`, `read_config` and the `ARCHITECTURES` it answers to."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from outrider.attention.caches.model_caches import CacheSpec
from outrider.core import plugins
from outrider.core.config_reader import ConfigReader
from outrider.core.errors import CheckpointError, ConfigError, UnsupportedError
from outrider.core.model_config import ModelConfig, read_architecture
from outrider.core.pooler_config import (
    CAUSAL_FORM,
    InstructedEmbedder,
    PoolerConfig,
    Reranker,
    late_interaction,
    read_pooler,
    split_form,
)
from outrider.core.quantization.read import read_quantization
from outrider.layers.assignment import assign_formats
from outrider.layers.context import LayerContext
from outrider.layers.decoder import CausalLM
from outrider.loading.dummy import fill_randomly
from outrider.loading.generation_config import read_generation_eos
from outrider.loading.hf import open_model_config
from outrider.loading.instructed_embedder import read_instructed
from outrider.loading.load import load_into
from outrider.loading.names import bare_name, is_named, module_name
from outrider.loading.reranker import read_reranker
from outrider.loading.sentence_transformers import dense_tensors, has_modules, with_modules
from outrider.loading.sizes import sizes_that_fit
from outrider.loading.token_dense import token_dense
from outrider.loading.weights import Weights, open_weights

_MAX_ROPE_BYTES = 8 << 30
_LM_HEAD = "lm_head."


def families() -> dict[str, ModuleType]:
    """Architecture -> the file that has it, by listing this folder."""
    package = sys.modules[__name__]
    found: dict[str, ModuleType] = {}
    for name in plugins.names(package):
        module = plugins.find(package, name, what="model")
        found |= dict.fromkeys(module.ARCHITECTURES, module)
    return found


def find_family(architecture: str) -> ModuleType:
    """The file that has `architecture`, or the form of it that generates; `UnsupportedError` lists those that there
    are."""
    known = families()
    base, form = split_form(architecture)
    if architecture not in known and form:  # the text part of a multimodal family may have a name of its own
        for generates in (base + CAUSAL_FORM, base.removesuffix("Text") + CAUSAL_FORM):
            if generates in known:
                return known[generates]
    if architecture not in known:
        raise UnsupportedError(
            f"config.json: architecture {architecture!r} is not supported. Supported: {', '.join(sorted(known))}."
        )
    return known[architecture]


def find_model(config: ModelConfig) -> type[CausalLM]:
    """The class for `config.architecture`."""
    model_class: type[CausalLM] = find_family(config.architecture).Model
    return model_class


def read_config(reader: ConfigReader, *, pooler: PoolerConfig | None = None) -> ModelConfig:
    """The config of a model, read by its family. `UnsupportedError` names every key that the family does not know.

    pooler: the head of a model that pools; None: it generates.
    """
    architecture = read_architecture(reader)
    family = find_family(architecture)
    if pooler is None and pools_only(architecture):
        raise UnsupportedError(
            f"{reader.where}: architecture {architecture!r} pools, and cannot generate. Leave runner at 'auto', or use"
            " a checkpoint of a language model."
        )
    config: ModelConfig = replace(family.read_config(reader), pooler=pooler)
    if pooler is not None and pooler.text_mark is not None:
        config = replace(config, is_causal=False, windows=())
    if pooler is None and not config.is_causal:
        raise UnsupportedError(
            f"{reader.where}: tokens see later tokens (is_causal=false or use_bidirectional_attention=true), so the"
            " model cannot generate. Leave runner at 'auto', or set it to 'pooling'."
        )
    quantization = read_quantization(reader)
    if quantization is None and reader.is_object("text_config"):
        quantization = read_quantization(reader.section("text_config"))
    reader.finish()
    return replace(config, quantization=quantization)


def pools_only(architecture: str) -> bool:
    """True for an architecture that has no head of a language model."""
    family = find_family(architecture)
    return architecture not in family.ARCHITECTURES or hasattr(family, "read_pooler")


def read_model_config(directory: str | Path, *, runner: str = "generate") -> ModelConfig:
    """The config of the model in `directory`. Its eos ids are those of generation_config.json, then those of
    config.json. `runner`: "generate", "pooling", or "auto" to pool with models that are made for it."""
    reader = open_model_config(directory)
    pooler = find_pooler(reader, Path(directory), runner=runner)
    config = read_config(reader, pooler=pooler)
    ids = read_generation_eos(directory) + config.eos_token_ids
    return replace(config, eos_token_ids=tuple(dict.fromkeys(ids)))


def find_pooler(reader: ConfigReader, directory: Path, *, runner: str) -> PoolerConfig | None:
    """The pooler of a model; None if it generates.

    "auto" pools if the model cannot generate, or if the directory is one of sentence-transformers.
    """
    architecture = read_architecture(reader)
    family = find_family(architecture)
    cannot_generate = pools_only(architecture) or _sees_later_tokens(reader)
    if runner == "generate" or (runner == "auto" and not (cannot_generate or has_modules(directory))):
        return None
    embedder: InstructedEmbedder | None = getattr(family, "EMBEDDER", None)
    if embedder is not None:
        found = read_instructed(directory, embedder, architecture=architecture)
        if found is not None:
            return found
    reranker: Reranker | None = getattr(family, "RERANKER", None)
    if reranker is not None:
        found = read_reranker(reader, directory, reranker, architecture=architecture)
        if found is not None:
            return found
    token_layer = getattr(family, "LATE_INTERACTION", {}).get(architecture)
    if token_layer is not None:
        return late_interaction(token_dense(directory, token_layer))
    read = getattr(family, "read_pooler", read_pooler)
    pooler: PoolerConfig = read(reader, architecture=architecture)
    if pooler.matryoshka_dimensions is None and is_named(directory, getattr(family, "MATRYOSHKA", ())):
        pooler = replace(pooler, matryoshka_dimensions=())
    return with_modules(pooler, directory)


def _sees_later_tokens(reader: ConfigReader) -> bool:
    return not reader.flag("is_causal", default=True) or reader.flag("use_bidirectional_attention")


def cache_specs(config: ModelConfig, context: LayerContext) -> tuple[CacheSpec, ...]:
    """The caches that the layers of a model with this config need, before any memory is allocated."""
    without_memory = replace(context, device=torch.device("meta"))
    with sizes_that_fit("config.json"):
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
    weights = open_weights(directory) if load_format != "dummy" else None
    if weights is not None and not any(bare_name(name).startswith(_LM_HEAD) for name in weights.names):
        config = replace(config, tie_word_embeddings=True)
    context = replace(context, assigns_formats=config.quantization is not None)

    dense = config.pooler.dense if config.pooler is not None else ()

    def build(context: LayerContext, name_of: Callable[[str], str] = "model.{}".format) -> CausalLM:
        model = model_class(config, context, max_positions=max_positions)
        if config.quantization is not None:
            assign_formats(model, config.quantization, context.kernels, where=directory, name_of=name_of)
        return model

    if weights is None:
        with sizes_that_fit(directory):
            model = build(context)
        fill_randomly(model, seed)
        return model
    _check_sizes(config, weights, where=directory, max_positions=max_positions)
    on_meta = replace(context, device=torch.device("meta"))
    with sizes_that_fit(directory):
        names = modules_of(weights, model_class(config, on_meta, max_positions=1))
        headers = chain(weights.headers(), dense_tensors(directory, dense))
        fill_model(build(on_meta, names), headers, where=directory)  # finds every fault without memory
        model = build(context, names)
    fill_model(model, chain(weights.tensors(), dense_tensors(directory, dense)), where=directory)
    return model


def _check_sizes(config: ModelConfig, weights: Weights, *, where: str, max_positions: int) -> None:
    """Raises an OutriderError for sizes that take long to build, or a table that no memory holds."""
    num_tensors = len(weights.names)
    if config.num_layers > num_tensors:
        raise CheckpointError(
            f"{where}: config.json asks for num_hidden_layers={config.num_layers}, and the files hold {num_tensors}"
            " tensors. Use the config.json that came with the weights."
        )
    num_bytes = 4 * max_positions * config.rotary_size
    if num_bytes > _MAX_ROPE_BYTES:
        raise ConfigError(
            f"{where}: a rope table for {max_positions} positions takes {num_bytes >> 30} GiB. Set max_model_len to"
            " what requests need."
        )


def fill_model(model: CausalLM, tensors: Iterable[tuple[str, Tensor]], *, where: str) -> None:
    """Fill a model from the tensors of a checkpoint; without data, check that they fit."""
    skips = (*model.skips, *(model.mtp.all_prefixes if model.mtp is not None else ()))
    if not hasattr(model, "lm_head"):
        skips = (*skips, _LM_HEAD)  # the head of the language model that it was made from
    parts = (part for name, tensor in tensors for part in model.split(name, tensor))
    load_into(model, parts, where=where, renames=model.renames, skips=skips)


def modules_of(weights: Weights, model: CausalLM) -> Callable[[str], str]:
    """Name of a module here -> its name in the checkpoint."""
    names: dict[str, str] = {}
    for name, header in weights.headers():
        for part, _ in model.split(name, header):
            names[module_name(part, model.renames).rpartition(".")[0]] = name.rpartition(".")[0]
    return lambda name: names.get(name, f"model.{name}")
