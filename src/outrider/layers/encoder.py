"""The encoder loop that models share: a pass over whole texts, in which every token sees its whole text.

Nothing is kept between passes, so an encoder has no caches. A model file states only what differs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.model_caches import CacheSpec, ModelCaches
from outrider.core.errors import UnsupportedError
from outrider.core.model_config import EncoderConfig, ModelConfig
from outrider.kernels import kernels_of_texts
from outrider.layers.context import LayerContext
from outrider.layers.decoder import Hidden
from outrider.layers.embedding import Embedding
from outrider.layers.linear import Linear
from outrider.layers.mlp import MLP
from outrider.layers.mtp import MtpForm
from outrider.layers.norm import LayerNorm
from outrider.layers.rope import Rope
from outrider.layers.text_head import TextHead


class TextAttention(nn.Module):
    """Self-attention of one layer inside each text."""

    def __init__(
        self,
        config: ModelConfig,
        context: LayerContext,
        *,
        rope: Rope | None = None,
        window: int | None = None,
        has_pieces: bool = True,
    ) -> None:
        """`rope`: rotates q and k; None: positions are in the embedding. `window`: tokens that a token sees, itself in
        the middle; None: all. `has_pieces`: the checkpoint has q, k and v as three tensors."""
        super().__init__()
        self.num_heads, self.head_dim, self.window = config.num_heads, config.head_dim, window
        size = self.num_heads * self.head_dim
        self.qkv_proj = Linear(
            config.hidden_size,
            3 * size,
            context,
            bias=config.attention_bias,
            pieces=(("q_proj", size), ("k_proj", size), ("v_proj", size)) if has_pieces else (),
        )
        self.o_proj = Linear(size, config.hidden_size, context, bias=config.attention_bias)
        self._rope = (rope,)  # shared by all layers; in a tuple, so that it is not a child of each
        self._kernels = context.kernels

    def forward(self, x: Tensor, batch: ForwardBatch, plan: Any) -> Tensor:
        """x [M, H] -> [M, H]. plan: that of `plan_texts`."""
        heads = self.qkv_proj(x).view(x.shape[0], 3 * self.num_heads, self.head_dim)
        (rope,) = self._rope
        qk, v = heads.split([2 * self.num_heads, self.num_heads], dim=1)
        if rope is not None:
            qk = self._kernels.rotary(qk, batch.positions, rope.cos_sin)
        q, k = qk.split(self.num_heads, dim=1)
        attended = self._kernels.text_attention(q, k, v, plan, scale=self.head_dim**-0.5, window=self.window)
        return self.o_proj(attended.view(x.shape[0], -1))


class PostNormLayer(nn.Module):
    """h = norm(h + attention(h)); h = norm(h + mlp(h))."""

    def __init__(self, config: ModelConfig, context: LayerContext, *, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.self_attn = attention
        self.attention_norm = LayerNorm(config.hidden_size, config.norm_eps, context)
        self.mlp = mlp
        self.mlp_norm = LayerNorm(config.hidden_size, config.norm_eps, context)

    def forward(self, h: Tensor, batch: ForwardBatch, plan: Any) -> Tensor:
        """h [M, H] -> [M, H]."""
        h = self.attention_norm(self.self_attn(h, batch, plan) + h)
        normed: Tensor = self.mlp_norm(self.mlp(h) + h)
        return normed


class Encoder(nn.Module):
    """Embedding, layers and the head of a classifier."""

    renames: Mapping[str, str] = {}
    """Leading parts of checkpoint names that differ from the names of the modules here."""
    parts: Mapping[str, str] = {}
    """Other parts of checkpoint names, whole between dots -> those of the modules here; replaced in this order."""
    skips: tuple[str, ...] = ()
    """Leading parts of checkpoint names that are not loaded on purpose."""
    mtp: MtpForm | None = None
    """None: an encoder has no prediction module."""
    taps: tuple[int, ...] = ()
    """Empty: no drafter reads an encoder."""

    def __init__(self, config: ModelConfig, context: LayerContext, *, max_positions: int) -> None:
        """`max_positions`: positions that can occur, for rope tables. Weights are left unfilled.

        Raises UnsupportedError if the device has no kernels of encoders.
        """
        super().__init__()
        context = replace(context, kernels=kernels_of_texts(context.kernels))
        self.config, self.context = config, context
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, context)
        self.embed_positions = self.embed_types = None
        if self.shape.num_positions:
            self.embed_positions = Embedding(self.shape.num_positions, config.hidden_size, context)
        if self.shape.num_token_types:
            self.embed_types = Embedding(self.shape.num_token_types, config.hidden_size, context)
        self.embed_norm = LayerNorm(config.hidden_size, config.norm_eps, context, bias=self.shape.norm_bias)
        self.build_ropes(max_positions)
        self.layers = nn.ModuleList(self.build_layer(index) for index in range(config.num_layers))
        self.build_head()
        if config.pooler is not None and config.pooler.dense:
            self.text_head = TextHead(config.pooler.dense, context)

    @property
    def shape(self) -> EncoderConfig:
        """The part of the config that only encoders have."""
        assert self.config.encoder is not None, f"{self.config.architecture} is not an encoder"
        return self.config.encoder

    @property
    def num_labels(self) -> int:
        """Rows of the classifier; 0 where the model has none."""
        return len(self.config.pooler.labels) if self.config.pooler is not None else 0

    def build_ropes(self, max_positions: int) -> None:
        """Make the rope tables of a family that rotates."""

    def build_layer(self, index: int) -> nn.Module:
        """The layer at `index`. A family whose layers have other parts overrides this."""
        attention = TextAttention(self.config, self.context)
        return PostNormLayer(self.config, self.context, attention=attention, mlp=MLP(self.config, self.context))

    def build_head(self) -> None:
        """Make the modules that read the vectors of texts. A family with a classifier overrides this."""

    def position_rows(self, batch: ForwardBatch) -> Tensor:
        """[num_tokens] int64, rows of the table of positions."""
        return batch.positions

    def embed(self, batch: ForwardBatch) -> Tensor:
        """Normed sum of the rows of each token, [num_tokens, H]."""
        embedded: Tensor = self.embed_tokens(batch.token_ids)
        if self.embed_types is not None:
            types = batch.token_types
            if types is None or self.shape.num_token_types == 1:
                types = batch.token_ids.new_zeros(batch.num_tokens)
            embedded = embedded + self.embed_types(types)
        if self.embed_positions is not None:
            embedded = embedded + self.embed_positions(self.position_rows(batch))
        normed: Tensor = self.embed_norm(embedded)
        return normed

    @property
    def cache_specs(self) -> tuple[CacheSpec, ...]:
        """Empty: nothing is kept of a text."""
        return ()

    def split(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The tensor under the name of its module here."""
        dotted = f".{name}."
        for old, new in self.parts.items():
            dotted = dotted.replace(f".{old}.", f".{new}.")
        yield dotted.strip("."), tensor

    def set_taps(self, taps: Sequence[int]) -> None:
        """Raises UnsupportedError if a drafter asks for hidden states."""
        if taps:
            raise UnsupportedError(f"{self.config.architecture} writes no tokens, so it has no drafter.")

    def forward(self, batch: ForwardBatch, caches: ModelCaches | Sequence[Any] = ()) -> Hidden:
        """Run all layers over whole texts."""
        plan = self.context.kernels.plan_texts(batch.kv_lengths, batch.row_counts)
        h = self.embed(batch)
        for layer in self.layers:
            h = layer(h, batch, plan)
        return Hidden(self.finish(h), None)

    def finish(self, h: Tensor) -> Tensor:
        """The hidden states, from the output of the last layer. A family with a final norm overrides this."""
        return h

    def pool(self, vectors: Tensor) -> Tensor:
        """The head: vectors [N, H] of texts -> [N, size] fp32; without a head they stay as they are."""
        if self.config.pooler is not None and self.config.pooler.dense:
            projected: Tensor = self.text_head(vectors)
            return projected
        return vectors.float()
