"""Drafts with an independent small model, which must have the target's vocabulary.

    token     x0   x1   x2   x3          index j holds K, V of token x[j];
    index      0    1    2    3          row j predicts token j + 1.

Its KV is at the same indices as the target's and depends on tokens alone, so there is no feature to pass on. After a
step of the target, its rows are those of the tokens *after* the target's: one pass reads the token just sampled
together with the accepted drafts, and k drafts take k passes. No such row writes the first index that a request
computes; it is written when the request is admitted. Everything else is in `speculation/chain.py`.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.model_caches import CacheSpec
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.core.plan import RowAdmission
from outrider.core.quantization.while_loading import quantised_while_loading
from outrider.layers.decoder import Hidden
from outrider.loading.gguf.file import GgufFile, is_gguf
from outrider.loading.gguf.vocabulary import read_vocabulary
from outrider.loading.hf import read_json
from outrider.speculation.chain import ChainDrafter
from outrider.speculation.drafter import DrafterContext
from outrider.speculation.options import check_directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of method "draft_model"."""

    model: str
    """Directory of a causal language model with the target's vocabulary."""

    def __post_init__(self) -> None:
        check_directory("model", self.model)


class Drafter(ChainDrafter):
    """`method: "draft_model"`: drafts with an independent model."""

    first_index = 0

    def __init__(self, context: DrafterContext) -> None:
        options: Options = context.options
        directory = options.model
        config = context.read_config(directory)
        if config.gated_delta is not None:
            raise UnsupportedError(
                f"{directory}: {config.architecture} is not supported as a draft model: its layers have states."
                " Take a draft model whose layers all attend."
            )
        _check_vocabulary(directory, config.vocab_size, context)
        super().__init__(context, feature_size=0)
        chosen = quantised_while_loading(config.quantization, context.config.quantization, where=directory)
        self._model = context.load_model(directory, replace(config, quantization=chosen))
        self._token_ids = torch.arange(config.vocab_size, device=context.device)

    @property
    def cache_specs(self) -> tuple[CacheSpec, ...]:
        return self._model.cache_specs

    @property
    def bytes_per_step(self) -> int:
        """All weights in every pass, except an embedding that is not tied to the head: single rows are read."""
        is_tied = self._model.lm_head.is_tied
        sizes = {name: parameter.nbytes for name, parameter in self._model.named_parameters()}
        every = sum(size for name, size in sizes.items() if is_tied or not name.startswith("embed_tokens"))
        return self.num_drafts * every

    @property
    def draft_token_ids(self) -> Tensor:
        return self._token_ids

    def needs_first_row(self, entry: RowAdmission) -> bool:
        return True

    def features(self, hidden: Hidden) -> Tensor:
        return hidden.last[:, :0]

    def forward(self, features: Tensor, batch: ForwardBatch) -> Tensor:
        return self._model(batch, self.caches).last

    def fed_back(self, state: Tensor) -> Tensor:
        return state[:, :0]

    def draft_logits(self, state: Tensor) -> Tensor:
        return self._model.logits(state)


def _check_vocabulary(directory: str, vocab_size: int, context: DrafterContext) -> None:
    """Refuse a vocabulary of another size, or with other tokens if both models have a tokenizer."""
    wanted = context.target_config.vocab_size
    remedy = "A draft model must have the target's vocabulary: take one of the same family."
    if vocab_size != wanted:
        raise ConfigError(f"the draft model's vocab_size={vocab_size} is not the target's {wanted}. {remedy}")
    ours, theirs = (_vocabulary(path) for path in (directory, context.engine.model))
    if ours is None or theirs is None:
        return
    for token_id in sorted(ours.keys() | theirs.keys()):
        if ours.get(token_id) != theirs.get(token_id):
            raise ConfigError(
                f"token {token_id} is {ours.get(token_id)!r} in the draft model and {theirs.get(token_id)!r} in the "
                f"target. {remedy}"
            )


def _vocabulary(path: str) -> dict[int, str] | None:
    """Text of each token id of a model; None if it has no tokenizer."""
    name = "tokenizer.json"
    if is_gguf(path):
        return read_vocabulary(GgufFile(path)).used
    return _tokens_of(read_json(path, name)) if (Path(path) / name).is_file() else None


def _tokens_of(tokenizer: dict[str, Any]) -> dict[int, str]:
    """Text of each token id of a tokenizer.json, added tokens included."""
    model = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(model, list):  # unigram: [[token, score], …]
        tokens = {token_id: entry[0] for token_id, entry in enumerate(model)}
    else:
        tokens = {token_id: token for token, token_id in model.items()}
    return tokens | {entry["id"]: entry["content"] for entry in tokenizer.get("added_tokens", [])}
