"""The decoder loop that every text model shares; a model file states only what differs.

A tap is the residual stream after that many layers: tap 0 is the embedding, tap n the input of the final norm.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from outrider.attention.base import StepAttention
from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.model_caches import CacheSpec, LayerCache, ModelCaches
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.core.model_config import ModelConfig
from outrider.core.pooler_config import ANSWER_HEAD, REWARD_HEAD, SCORE_HEAD
from outrider.kernels import kernels_of_texts
from outrider.layers.attention import Attention
from outrider.layers.context import LayerContext
from outrider.layers.embedding import Embedding, LMHead
from outrider.layers.mlp import GatedMLP
from outrider.layers.moe import MoE
from outrider.layers.mtp import MtpForm, MtpModule
from outrider.layers.norm import RMSNorm
from outrider.layers.pooling_head import answer_logits, answer_rows, build_score
from outrider.layers.rope import Rope
from outrider.layers.text_head import TextHead
from outrider.layers.whole_text_attention import WholeTextAttention


@dataclass(frozen=True, slots=True)
class Hidden:
    """Output of a forward pass, one row for each token of the batch."""

    last: Tensor  # [num_tokens, hidden_size], after the final norm
    taps: Tensor | None  # [num_tokens, len(taps) × hidden_size], in the order asked for; None without taps


class DecoderLayer(nn.Module):
    """h += attention(norm(h)); h += mlp(norm(h)). Each sum is made together with the norm that follows it."""

    def __init__(
        self,
        config: ModelConfig,
        context: LayerContext,
        *,
        attention: nn.Module,
        mlp: nn.Module,
        attention_name: str = "self_attn",
    ):
        """`attention_name`: name of the attention in the checkpoint."""
        super().__init__()
        size, eps = config.hidden_size, config.norm_eps
        flags = {"plus_one": config.norm_plus_one, "casts_last": config.norm_casts_last}
        self.input_layernorm = RMSNorm(size, eps, context, **flags)
        self.add_module(attention_name, attention)
        self.attention_name = attention_name
        self.post_attention_layernorm = RMSNorm(size, eps, context, **flags)
        self.mlp = mlp

    @property
    def cache_spec(self) -> CacheSpec:
        """The cache that this layer needs for earlier tokens."""
        return cast(CacheSpec, self.get_submodule(self.attention_name).cache_spec)

    def forward(
        self, x: Tensor, h: Tensor | None, batch: ForwardBatch, cache: LayerCache, attention: StepAttention
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x, h [M, H]: the previous layer's addend and its residual stream (None: x is the whole stream).

        Returns this layer's own (addend, stream), and the stream that went in, summed.
        """
        if h is None:
            normed, entered = self.input_layernorm(x), x
        else:
            normed, entered = self.input_layernorm.add(x, h)
        attended = self.get_submodule(self.attention_name)(normed, batch, cache, attention)
        normed, h = self.post_attention_layernorm.add(attended, entered)
        return self.mlp(normed), h, entered


class CausalLM(nn.Module):
    """Embedding, layers, final norm and head: that of a language model, or of one that pools."""

    renames: Mapping[str, str] = {}
    """Leading parts of checkpoint names that differ from the names of the modules here."""
    skips: tuple[str, ...] = ()
    """Leading parts of checkpoint names that are not loaded on purpose: another part of the model, or a drafter's."""
    mtp: MtpForm | None = None
    """The family's prediction modules, if it has any."""
    qk_norm: bool = False
    """Attention normalises the heads of q and k before it rotates them."""
    whole_qk_norm: bool = False
    """Attention normalises all heads of q together, and all of k, before it rotates them."""
    output_bias: bool = True
    """o has a bias if q, k and v have one."""
    has_sinks: bool = False
    """The softmax of each head has one more logit, which is a weight and has no value."""

    def __init__(self, config: ModelConfig, context: LayerContext, *, max_positions: int) -> None:
        """`max_positions`: positions that can occur, for the rope table. Weights are left unfilled.

        Raises UnsupportedError if tokens see their whole text, and a layer or the device cannot do that.
        """
        super().__init__()
        if not config.is_causal:
            context = replace(context, kernels=kernels_of_texts(context.kernels))
        self.config = config
        self.context = context
        self.taps: tuple[int, ...] = ()
        self._answer_rows: Tensor | None = None
        self.rope = Rope(config.rope, config.rotary_size, max_positions, context)
        self.local_rope = self.rope
        if config.local_rope is not None:
            self.local_rope = Rope(config.local_rope, config.rotary_size, max_positions, context)
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, context)
        self.layers = nn.ModuleList(self.build_layer(index) for index in range(config.num_layers))
        self._check_whole_texts()
        self.norm = RMSNorm(
            config.hidden_size,
            config.norm_eps,
            context,
            plus_one=config.norm_plus_one,
            casts_last=config.norm_casts_last,
        )
        self.build_head()

    def build_head(self) -> None:
        """Make the module that reads hidden states: `lm_head`, or the head of a model that pools."""
        config, context = self.config, self.context
        if config.pooler is None or config.pooler.head == ANSWER_HEAD:
            tied_to = self.embed_tokens if config.tie_word_embeddings else None
            self.lm_head = LMHead(config.hidden_size, config.vocab_size, context, tied_to=tied_to)
        if config.pooler is not None and config.pooler.head in (SCORE_HEAD, REWARD_HEAD):
            self.score = build_score(config.pooler, config.hidden_size, context)
        if config.pooler is not None and config.pooler.dense:
            self.text_head = TextHead(config.pooler.dense, context)

    def _check_whole_texts(self) -> None:
        """Raises UnsupportedError for layers that keep a state or rows of tokens, and cannot see a whole text."""
        if self.config.is_causal:
            return
        parts = (part for layer in self.layers for part in layer.children() if hasattr(part, "cache_spec"))
        others = {type(part).__name__ for part in parts if not isinstance(part, WholeTextAttention)}
        if others:
            raise UnsupportedError(
                f"{self.config.architecture} with attention to later tokens is not supported: its layers have"
                f" {', '.join(sorted(others))}. Set is_causal to true in config.json."
            )

    def build_layer(self, index: int) -> nn.Module:
        """The layer at `index`. A family whose layers have other parts overrides this."""
        return DecoderLayer(self.config, self.context, attention=self.build_attention(index), mlp=self.build_mlp(index))

    def build_attention(self, index: int) -> nn.Module:
        """The attention of the layer at `index`."""
        window = self.config.window(index)
        kind = Attention if self.config.is_causal else WholeTextAttention
        return kind(
            self.config,
            self.context,
            rope=self.rope if window is None else self.local_rope,
            qk_norm=self.qk_norm,
            whole_qk_norm=self.whole_qk_norm,
            output_bias=self.output_bias,
            window=window,
            has_sinks=self.has_sinks,
        )

    def build_mlp(self, index: int) -> nn.Module:
        """The MLP of the layer at `index`: a mixture of experts where the config has one there."""
        moe = self.config.moe
        kind = GatedMLP if moe is None or index in moe.dense_layers else MoE
        return kind(self.config, self.context)

    def embed(self, batch: ForwardBatch) -> Tensor:
        """Rows of the embedding table, [num_tokens, hidden_size]. A model whose tokens stand for other content
        overrides this. Drafters that share the table call it too."""
        embedded: Tensor = self.embed_tokens(batch.token_ids)
        return embedded

    def scale_embedded(self, embedded: Tensor) -> Tensor:
        """Input of the first layer, from the rows of the table. Drafters read the rows themselves: a family that scales
        what its own layers read overrides this."""
        return embedded

    @property
    def cache_specs(self) -> tuple[CacheSpec, ...]:
        """The cache that each layer needs for earlier tokens, in the order of the layers. Empty if tokens see their
        whole text, which is computed at once."""
        if not self.config.is_causal:
            return ()
        return tuple(cast(CacheSpec, layer.cache_spec) for layer in self.layers)

    def split(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Split a checkpoint tensor into the weights it holds, by their module names. Checkpoints with other layouts
        override this."""
        yield name, tensor

    def build_mtp(self) -> MtpModule:
        """A prediction module, unfilled; its layer is made as the model's last one."""
        assert self.mtp is not None, f"{self.config.architecture} has no prediction module"
        layer = self.build_layer(self.config.num_layers - 1)
        return MtpModule(self.config, self.context, layer=layer, form=self.mtp)

    def set_taps(self, taps: Sequence[int]) -> None:
        """Make `forward` also return the residual stream after these numbers of layers (0 to all)."""
        for tap in taps:
            if not 0 <= tap <= self.config.num_layers:
                raise ConfigError(
                    f"tap {tap} is out of range: the target has {self.config.num_layers} layers, and a tap is the"
                    " number of layers before it."
                )
        self.taps = tuple(taps)

    def forward(self, batch: ForwardBatch, caches: ModelCaches) -> Hidden:
        """Run all layers; each writes what it keeps of the batch's tokens into its own cache."""
        attention: Any
        of_layers: Iterable[Any]
        if self.config.is_causal:
            attention, of_layers = caches.begin(batch), caches
        else:
            attention = self.context.kernels.plan_texts(batch.kv_lengths, batch.row_counts)
            of_layers = [None] * len(self.layers)
        x, h = self.scale_embedded(self.embed(batch)), None
        entered = []
        for layer, cache in zip(self.layers, of_layers, strict=True):
            x, h, before = layer(x, h, batch, cache, attention)
            entered.append(before)
        assert h is not None, "a model has layers"
        last, total = self.norm.add(x, h)
        entered.append(total)
        taps = torch.cat([entered[tap] for tap in self.taps], dim=1) if self.taps else None
        return Hidden(last, taps)

    def pool(self, vectors: Tensor) -> Tensor:
        """The head of a model that pools: vectors [M, H] of texts or tokens -> [M, size] fp32."""
        assert self.config.pooler is not None, f"{self.config.architecture} generates"
        pooler, context = self.config.pooler, self.context
        if pooler.head == ANSWER_HEAD:
            if self._answer_rows is None:
                self._answer_rows = answer_rows(self.lm_head, pooler, context)
            x = vectors.to(context.dtype)
            return answer_logits(x, self._answer_rows, lm_head=self.lm_head, pooler=pooler, context=context)
        if pooler.head in (SCORE_HEAD, REWARD_HEAD):
            scored: Tensor = self.score(vectors)
            return scored
        if pooler.dense:
            projected: Tensor = self.text_head(vectors)
            return projected
        return vectors.to(torch.float32)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [S, H], rows of `Hidden.last` -> [S, vocab_size] fp32."""
        return self.lm_head(hidden)
