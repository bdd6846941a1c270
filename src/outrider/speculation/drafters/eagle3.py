"""EAGLE-3: a transformer layer that reads three residual streams of the target and drafts token by token.

    f_j = taps of the target at j            g = fc(f_j)           only for target features; a fed-back state is g
    x   = (input_layernorm(E[x_j+1]) ‖ hidden_norm(g))             attention input, twice as wide
    r   = g + o_proj(Attn(x))                y = r + MLP(post_attention_layernorm(r))
    logits = lm_head(norm(y)) over the draft vocabulary            next pass: g <- y

Further layers of a head are ordinary ones, which follow on y. A head of the whole vocabulary may use the target's
lm_head.

Source: Li, Wei, Zhang, Zhang, "EAGLE-3", arXiv 2503.01840; checkpoint formats of the original release and of the
speculators library. Everything about indices, KV and blocks is in `speculation/chain.py`.
"""

from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from outrider.attention.base import StepAttention
from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.paged_kv import LayerKV, PagedKV
from outrider.core.errors import CheckpointError, ConfigError
from outrider.layers.attention import Attention
from outrider.layers.context import LayerContext
from outrider.layers.decoder import DecoderLayer, Hidden
from outrider.layers.embedding import LMHead
from outrider.layers.linear import Linear
from outrider.layers.mlp import GatedMLP
from outrider.layers.norm import RMSNorm
from outrider.layers.rope import Rope
from outrider.loading.hf import open_config
from outrider.speculation.chain import ChainDrafter
from outrider.speculation.drafter import DrafterContext
from outrider.speculation.eagle3_config import NORM_OUTPUT, Eagle3Config, read_eagle3_config
from outrider.speculation.head import Embed, Head, HeadFiles, load_head
from outrider.speculation.options import check_directory

_RENAMES = {"midlayer.": "layers.0."}
"""Name of the layer in the original format, and here."""


_FIRST_PASS = ("fc", "input_norm")
"""Weights between the target's features and the head's own width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of method "eagle3"."""

    model: str
    """Directory of the head."""
    aux_hidden_state_layer_ids: tuple[int, ...] | None = None
    """Target layers to read, in place of the head's own list: id k is the residual stream after k layers."""
    norm_output: str | None = None
    """Meaning of norm_output in the config of a head in the original format: "fed_back" or "logits"."""

    def __post_init__(self) -> None:
        check_directory("model", self.model)
        if self.norm_output is not None and self.norm_output not in NORM_OUTPUT:
            raise ConfigError(
                f"speculative_config['norm_output']={self.norm_output!r} must be one of {', '.join(NORM_OUTPUT)}."
                " Leave it unset for a head whose config has no norm_output."
            )
        layers = self.aux_hidden_state_layer_ids
        if layers is None:
            return
        is_list = isinstance(layers, tuple) and len(layers) > 0
        if not is_list or not all(type(layer) is int and layer >= 0 for layer in layers):
            shown = list(layers) if isinstance(layers, tuple) else layers
            raise ConfigError(
                f"speculative_config['aux_hidden_state_layer_ids']={shown!r} must be a list of layer numbers, from 0."
                " Leave it unset for the head's own."
            )


class HeadLayer(nn.Module):
    """The first layer of the head; its attention reads embedding and feature side by side."""

    def __init__(self, config: Eagle3Config, context: LayerContext, *, rope: Rope) -> None:
        super().__init__()
        layer = config.layer
        size, eps = layer.hidden_size, layer.norm_eps
        self.hidden_norm = RMSNorm(size, eps, context)
        self.input_layernorm = RMSNorm(size, eps, context)
        self.self_attn = Attention(layer, context, rope=rope, input_size=2 * size, qk_norm=config.qk_norm)
        self.post_attention_layernorm = RMSNorm(size, eps, context)
        self.mlp = GatedMLP(layer, context)
        self._norm_before_residual = config.norm_before_residual

    @property
    def cache_spec(self) -> PagedKV:
        """Shape of the layer's keys and values."""
        return self.self_attn.cache_spec

    def forward(
        self, embedded: Tensor, feature: Tensor, batch: ForwardBatch, cache: LayerKV, attention: StepAttention
    ) -> Tensor:
        """embedded, feature [T, H] -> [T, H], before the final norm."""
        normed = self.hidden_norm(feature)
        attended = self.self_attn(self._joined(embedded, normed), batch, cache, attention)
        residual = normed if self._norm_before_residual else feature
        x, residual = self.post_attention_layernorm.add(attended, residual)
        return residual + self.mlp(x)

    def write_kv(self, embedded: Tensor, feature: Tensor, batch: ForwardBatch, cache: LayerKV) -> None:
        """Compute K and V only, which later passes read."""
        self.self_attn.write_kv(self._joined(embedded, self.hidden_norm(feature)), batch, cache)

    def _joined(self, embedded: Tensor, normed: Tensor) -> Tensor:
        """Input of attention, [T, 2 × H]."""
        return torch.cat([self.input_layernorm(embedded), normed], dim=1)


class Eagle3Head(Head):
    """The weights of a head, named as in the checkpoint."""

    d2t: Tensor | None  # [draft_vocab] int64, target id minus draft id
    t2d: Tensor | None  # [vocab] bool, target ids that have a draft id; not needed where d2t is there

    def __init__(
        self,
        config: Eagle3Config,
        context: LayerContext,
        *,
        max_positions: int,
        embed: Embed | None,
        tables: frozenset[str],
        has_norm: bool,
        has_logits: bool,
    ) -> None:
        """`tables`: those of d2t and t2d that the files have. `has_norm`, `has_logits`: they have norm and lm_head."""
        super().__init__(config.layer, context, embed=embed)
        layer, num_taps = config.layer, len(config.tap_layers)
        size, eps = layer.hidden_size, layer.norm_eps
        width = num_taps * config.target_hidden_size
        self.input_norm = RMSNorm(width, eps, context) if config.norm_before_fc else None
        self.fc_norm = None
        if config.fc_norm:
            self.fc_norm = nn.ModuleList(RMSNorm(config.target_hidden_size, eps, context) for _ in range(num_taps))
        self.fc = Linear(width, size, context)
        rope = Rope(layer.rope, layer.head_dim, max_positions, context)
        self.layers = nn.ModuleList([HeadLayer(config, context, rope=rope)])
        for _ in range(1, layer.num_layers):
            attention = Attention(layer, context, rope=rope, qk_norm=config.qk_norm)
            self.layers.append(DecoderLayer(layer, context, attention=attention, mlp=GatedMLP(layer, context)))
        self.norm = RMSNorm(size, eps, context) if has_norm else None
        self.lm_head: LMHead | None = None
        if has_logits:
            self.lm_head = LMHead(size, config.draft_vocab_size, context)
        elif layer.tie_word_embeddings and embed is None:
            self.lm_head = LMHead(size, config.draft_vocab_size, context, tied_to=self.embed_tokens)
        for name, count, dtype in (
            ("d2t", config.draft_vocab_size, torch.int64),
            ("t2d", layer.vocab_size, torch.bool),
        ):
            table = torch.zeros(count, dtype=dtype, device=context.device) if name in tables else None
            self.register_buffer(name, table)

    def features(self, taps: Tensor) -> Tensor:
        """taps [T, num_taps × target width] -> [T, H]."""
        if self.input_norm is not None:
            taps = self.input_norm(taps)
        if self.fc_norm is not None:
            parts = taps.chunk(len(self.fc_norm), dim=1)
            taps = torch.cat([norm(part.contiguous()) for norm, part in zip(self.fc_norm, parts, strict=True)], dim=1)
        return self.fc(taps)


class Drafter(ChainDrafter):
    """`method: "eagle3"`: drafts with an EAGLE-3 head."""

    def __init__(self, context: DrafterContext) -> None:
        options: Options = context.options
        self.config = read_eagle3_config(
            open_config(options.model),
            target=context.target_config,
            tap_layers=options.aux_hidden_state_layer_ids,
            norm_output=options.norm_output,
        )
        layer = self.config.layer
        super().__init__(context, feature_size=layer.hidden_size)
        self.tap_layers = self.config.tap_layers
        self._head = load_head(
            options.model, partial(_make_head, self.config, context), layer=layer, context=context,
            renames=_RENAMES,
        )  # fmt: skip
        self._lm_head = self._head.lm_head or context.target.lm_head
        self._draft_token_ids = _draft_token_ids(
            self._head, layer.vocab_size, num_drafts=self.config.draft_vocab_size, where=options.model
        )

    @property
    def cache_specs(self) -> tuple[PagedKV, ...]:
        return tuple(cast(PagedKV, layer.cache_spec) for layer in self._head.layers)

    @property
    def bytes_per_step(self) -> int:
        """`fc` and its norm in the first pass only, the rest in every pass; only single rows of the embedding."""
        sizes = {name: parameter.nbytes for name, parameter in self._head.named_parameters()}
        every = sum(size for name, size in sizes.items() if not name.startswith(("embed_tokens", *_FIRST_PASS)))
        first = sum(size for name, size in sizes.items() if name.startswith(_FIRST_PASS))
        if not any(name.startswith("lm_head.") for name in sizes):  # the target's, or the head's embedding
            every += self._lm_head.num_bytes
        return first + self.num_drafts * every

    @property
    def draft_token_ids(self) -> Tensor:
        return self._draft_token_ids

    def features(self, hidden: Hidden) -> Tensor:
        assert hidden.taps is not None, "the target was not asked for taps"
        return self._head.features(hidden.taps)

    def forward(self, features: Tensor, batch: ForwardBatch) -> Tensor:
        attention = self.caches.begin(batch)
        first, *others = self._head.layers
        state: Tensor = first(self._head.embed(batch), features, batch, self.caches[0], attention)
        x, stream = state, None
        for index, layer in enumerate(others, start=1):
            x, stream, _ = layer(x, stream, batch, self.caches[index], attention)
        return state if stream is None else stream + x

    def write_kv(self, features: Tensor, batch: ForwardBatch) -> None:
        if len(self._head.layers) > 1:
            self.forward(features, batch)  # the KV of a layer needs the outputs of those before it
            return
        (layer,), (cache,) = self._head.layers, self.caches
        assert isinstance(layer, HeadLayer) and isinstance(cache, LayerKV)
        layer.write_kv(self._head.embed(batch), features, batch, cache)

    def fed_back(self, state: Tensor) -> Tensor:
        return self._normed(state) if self.config.feeds_back_normed else state

    def draft_logits(self, state: Tensor) -> Tensor:
        logits: Tensor = self._lm_head(self._normed(state) if self.config.norms_logits else state)
        return logits

    def _normed(self, state: Tensor) -> Tensor:
        assert self._head.norm is not None, "a head that norms its output has a norm"
        return self._head.norm(state)


def _make_head(config: Eagle3Config, context: DrafterContext, files: HeadFiles) -> Eagle3Head:
    tables = files.names & {"d2t", "t2d"}
    if not tables and config.draft_vocab_size < config.layer.vocab_size:
        tables = frozenset({"d2t"})  # it is missing, which loading reports
    return Eagle3Head(
        config,
        files.layers,
        max_positions=context.max_model_len,
        embed=files.embed,
        tables=tables,
        has_norm=config.norms_logits or config.feeds_back_normed or "norm.weight" in files.names,
        has_logits=not files.names
        or any(name.startswith("lm_head.") for name in files.names)
        or not _can_borrow(config, files),
    )


def _can_borrow(config: Eagle3Config, files: HeadFiles) -> bool:
    """True where the target's lm_head, or the head's embedding that it is tied to, gives the logits of all tokens."""
    is_tied = config.layer.tie_word_embeddings and files.embed is None
    has_width = config.layer.hidden_size == config.target_hidden_size
    return config.draft_vocab_size == config.layer.vocab_size and (is_tied or has_width)


def _draft_token_ids(head: Eagle3Head, vocab_size: int, *, num_drafts: int, where: str) -> Tensor:
    """Target id of each draft id, [draft_vocab] int64.

    `d2t` holds offsets, or in the files of some tools the ids themselves: `t2d`, which marks the target ids, tells
    which. Either table can be derived from the other, so one is enough.
    """
    device = next(head.parameters()).device
    d2t = head.d2t.cpu() if head.d2t is not None else None
    marked = head.t2d.cpu().nonzero().squeeze(1) if head.t2d is not None else None
    if d2t is None:
        ids = torch.arange(num_drafts) if marked is None else marked
        if ids.shape[0] != num_drafts:
            raise CheckpointError(
                f"{where}: t2d marks {ids.shape[0]} tokens and the head drafts {num_drafts}, so d2t does not follow"
                " from it. Export the head's vocabulary map again."
            )
        return ids.to(device)
    readings = [torch.arange(num_drafts) + d2t, d2t]
    if marked is not None and marked.shape[0] > 0:
        fitting = [ids for ids in readings if torch.equal(ids, marked)]
    else:
        if bool((d2t.diff() > 0).all()):
            readings.reverse()  # offsets stay the same from one id to the next one; ids never do
        fitting = [ids for ids in readings if _are_token_ids(ids, vocab_size)]
    if not fitting:
        reason = "d2t and t2d contradict each other" if marked is not None else "d2t has ids that the target lacks"
        raise CheckpointError(f"{where}: {reason}. Export the head's vocabulary map again.")
    return fitting[0].to(device)


def _are_token_ids(ids: Tensor, vocab_size: int) -> bool:
    """True for different ids of the vocabulary."""
    ordered = ids.sort().values
    return bool(((ids >= 0) & (ids < vocab_size)).all()) and bool((ordered.diff() > 0).all())
