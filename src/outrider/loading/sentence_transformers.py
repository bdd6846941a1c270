"""The files of sentence-transformers in a model's directory: modules.json, and the pooling and normalisation it names.

They override what config.json alone would mean. A module that is not built is refused by name.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from outrider.core.errors import CheckpointError, UnsupportedError
from outrider.core.pooler_config import CLS, LAST, MEAN, PoolerConfig
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


def has_modules(directory: str | Path) -> bool:
    """True for a directory of sentence-transformers."""
    return (Path(directory) / MODULES).is_file()


def with_modules(pooler: PoolerConfig, directory: str | Path) -> PoolerConfig:
    """The pooler with what the files in `directory` say; the same one where there are none."""
    if not has_modules(directory):
        return pooler
    modules = _modules(Path(directory))
    names = [name for name, _ in modules]
    if names[:1] != ["Transformer"] or names[1:2] not in ([], ["Pooling"]) or names[2:] not in ([], ["Normalize"]):
        raise UnsupportedError(
            f"{Path(directory) / MODULES}: the modules {', '.join(names)} are not supported. Supported: Transformer,"
            " Pooling, Normalize, in this order."
        )
    _check_prompts_and_similarity(Path(directory), normalizes="Normalize" in names)
    pooling = [_pooling(Path(directory) / path) for name, path in modules if name == "Pooling"]
    limit = _longest(Path(directory))
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
