"""The files of sentence-transformers in a model's directory: modules.json, and the pooling, the linear layers and the
normalisation it names.

They override what config.json alone would mean. A module that is not built is refused by name.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor

from outrider.core.errors import CheckpointError, UnsupportedError
from outrider.core.pooler_config import CLS, IDENTITY, LAST, MEAN, TANH, TEXT_HEAD, Dense, PoolerConfig
from outrider.core.pooling import EMBED
from outrider.loading.checkpoint import Checkpoint
from outrider.loading.hf import read_json

MODULES = "modules.json"
_SENTENCE_CONFIG = "sentence_bert_config.json"
_LIBRARY_CONFIG = "config_sentence_transformers.json"
_MODES = {
    "pooling_mode_cls_token": CLS,
    "pooling_mode_mean_tokens": MEAN,
    "pooling_mode_lasttoken": LAST,
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
"""Keys of a pooling's config.json -> the pooling."""
_NAMES = {"cls": CLS, "mean": MEAN, "lasttoken": LAST}
"""Values of pooling_mode, the new spelling -> the pooling."""
_TANH = "Tanh"
_DENSE_ACTIVATIONS = {"Identity": IDENTITY, _TANH: TANH}
"""Names of classes of PyTorch -> the activation of a Dense."""
_DENSE_KEYS = {
    "module_input_name": ("sentence_embedding",),
    "module_output_name": ("sentence_embedding",),
}
"""Further keys of a Dense -> values that change nothing."""
_MOST_FEATURES = 1 << 20


def has_modules(directory: str | Path) -> bool:
    """True for a directory of sentence-transformers."""
    return (Path(directory) / MODULES).is_file()


def with_modules(pooler: PoolerConfig, directory: str | Path) -> PoolerConfig:
    """The pooler with what the files in `directory` say; the same one where there are none."""
    if not has_modules(directory):
        return pooler
    modules = _modules(Path(directory))
    names = [name for name, _ in modules]
    behind = [name for name in names[2:] if name != "Dense"]
    in_order = names[2 : len(names) - len(behind)] == ["Dense"] * (len(names) - 2 - len(behind))
    if (
        names[:1] != ["Transformer"]
        or names[1:2] not in ([], ["Pooling"])
        or behind not in ([], ["Normalize"])
        or not in_order
    ):
        raise UnsupportedError(
            f"{Path(directory) / MODULES}: the modules {', '.join(names)} are not supported. Supported: Transformer,"
            " Pooling, any number of Dense, Normalize, in this order."
        )
    _check_prompts_and_similarity(Path(directory), normalizes="Normalize" in names)
    pooling = [_pooling(Path(directory) / path) for name, path in modules if name == "Pooling"]
    limit = _longest(Path(directory))
    dense = tuple(_dense(Path(directory), path) for name, path in modules if name == "Dense")
    if dense:
        if pooler.labels:
            raise UnsupportedError(f"{Path(directory) / MODULES}: Dense in a classifier is not supported. Remove it.")
        pooler = replace(pooler, tasks=(EMBED,), default_task=EMBED, dense=dense, embedding_size=dense[-1].out_features)
    return replace(
        pooler,
        pooling=pooling[0] if pooling else pooler.pooling,
        normalizes="Normalize" in names,
        max_tokens=limit if limit is not None else pooler.max_tokens,
    )


def _modules(directory: Path) -> list[tuple[str, str]]:
    """(name of the class, folder) of each module, in order."""
    path = directory / MODULES
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        found = [(entry["type"].rpartition(".")[2], entry["path"]) for entry in entries]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a list of modules ({error!r}). Download it again.") from error
    for _, folder in found:
        if not isinstance(folder, str) or Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise CheckpointError(f"{path} names the folder {folder!r}: modules must lie in the directory itself.")
    return found


def _pooling(folder: Path) -> str:
    values = read_json(folder, "config.json")
    if isinstance(values.get("pooling_mode"), str):
        named = [_NAMES.get(values["pooling_mode"], values["pooling_mode"])]
    else:
        named = [mode for key, mode in _MODES.items() if values.get(key)]
    if len(named) != 1 or named[0] not in (CLS, MEAN, LAST):
        raise UnsupportedError(
            f"{folder / 'config.json'}: the pooling {' and '.join(named) or 'none'} is not supported. Supported: one of"
            " cls, mean, lasttoken."
        )
    if values.get("include_prompt", True) is not True:
        raise UnsupportedError(
            f"{folder / 'config.json'}: include_prompt=false is not supported, because requests do not say where their"
            " prompt ends. Use a model that pools over all tokens."
        )
    return named[0]


def _dense(directory: Path, folder: str) -> Dense:
    """The shape of one linear layer, from its config.json."""
    path, values = directory / folder / "config.json", read_json(directory / folder, "config.json")
    in_features, out_features = values.get("in_features"), values.get("out_features")
    if not (_is_size(in_features) and _is_size(out_features)):
        raise CheckpointError(
            f"{path}: in_features={in_features!r} and out_features={out_features!r} must be positive integers."
        )
    activation = _DENSE_ACTIVATIONS.get(str(values.get("activation_function", _TANH)).rpartition(".")[2])
    if activation is None:
        raise UnsupportedError(
            f"{path}: activation_function={values['activation_function']!r} is not supported. Supported: Identity,"
            " Tanh."
        )
    for key in values.keys() - {"in_features", "out_features", "bias", "activation_function"}:
        if values[key] not in (None, False, *_DENSE_KEYS.get(key, ())):
            raise UnsupportedError(f"{path}: {key}={values[key]!r} is not supported. Remove the module.")
    return Dense(
        in_features=in_features,
        out_features=out_features,
        has_bias=bool(values.get("bias", True)),
        activation=activation,
        folder=folder,
    )


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_FEATURES


def dense_tensors(directory: str | Path, dense: Sequence[Dense]) -> Iterator[tuple[str, Tensor]]:
    """(name in the model, tensor) of the weights of the linear layers."""
    for index, layer in enumerate(dense):
        if layer.folder is None:
            continue
        for name, tensor in Checkpoint(str(Path(directory) / layer.folder)).tensors():
            yield f"{TEXT_HEAD}.{index}.{name.removeprefix('linear.')}", tensor


def _check_prompts_and_similarity(directory: Path, *, normalizes: bool) -> None:
    """Refuse a prompt that the library would put before every text, and a similarity that is not the cosine."""
    if not (directory / _LIBRARY_CONFIG).is_file():
        return
    path, values = directory / _LIBRARY_CONFIG, read_json(directory, _LIBRARY_CONFIG)
    name, prompts = values.get("default_prompt_name"), values.get("prompts") or {}
    if name is not None and (not isinstance(prompts, Mapping) or prompts.get(name) != ""):
        raise UnsupportedError(
            f"{path}: default_prompt_name={name!r} is not supported: no prompt is put before a text. Set it to null,"
            " and write the prompt before each text."
        )
    similarity = values.get("similarity_fn_name")
    if similarity not in (None, "cosine") and not (similarity == "dot" and normalizes):
        raise UnsupportedError(
            f"{path}: similarity_fn_name={similarity!r} is not supported: scores are cosines. Set it to 'cosine' if you"
            " need vectors only."
        )


def _longest(directory: Path) -> int | None:
    """max_seq_length; None where the files do not say it."""
    if not (directory / _SENTENCE_CONFIG).is_file():
        return None
    values: Mapping[str, Any] = read_json(directory, _SENTENCE_CONFIG)
    limit = values.get("max_seq_length")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise CheckpointError(f"{directory / _SENTENCE_CONFIG}: max_seq_length={limit!r} must be a positive integer.")
    if values.get("do_lower_case"):
        raise UnsupportedError(
            f"{directory / _SENTENCE_CONFIG}: do_lower_case=true is not supported. Set it to false if tokenizer.json"
            " lower-cases by itself, as those of released models do."
        )
    return limit
