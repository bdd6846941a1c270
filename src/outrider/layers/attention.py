"""Self-attention over the paged cache: projections, head norms, rope, and a call of the backend."""

import torch
from torch import Tensor, nn

from outrider.attention.base import StepAttention
from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.paged_kv import LayerKV, PagedKV
from outrider.core.model_config import ModelConfig
from outrider.layers.context import LayerContext
from outrider.layers.linear import Linear, empty_parameter
from outrider.layers.norm import RMSNorm
from outrider.layers.rope import Rope


class Attention(nn.Module):
    """Grouped-query attention of one layer, with a gate on its output where the config has one."""

    def __init__(
        self,
        config: ModelConfig,
        context: LayerContext,
        *,
        rope: Rope,
        input_size: int | None = None,
        qk_norm: bool = False,
        whole_qk_norm: bool = False,
        output_bias: bool = True,
        window: int | None = None,
        has_sinks: bool = False,
    ) -> None:
        """`input_size`: width of the input, if not hidden_size. `qk_norm`: each head of q and k is normalised, before
        rope; `whole_qk_norm`: all heads of q together, and all of k. `output_bias`: o has a bias if q, k and v have.
        `window`: tokens that a token sees, itself included; None: all before it. `has_sinks`: the softmax of each head
        has one more logit, which is a weight and has no value.
        """
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim, self.window = config.head_dim, window
        q_size, kv_size = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.scale = config.attention_scale or config.head_dim**-0.5
        self.has_gates = config.attn_output_gate
        q_rows = (1 + self.has_gates) * q_size
        self.qkv_proj = Linear(
            input_size or config.hidden_size,
            q_rows + 2 * kv_size,
            context,
            bias=config.attention_bias,
            pieces=(("q_proj", q_rows), ("k_proj", kv_size), ("v_proj", kv_size)),
        )
        self.o_proj = Linear(q_size, config.hidden_size, context, bias=config.attention_bias and output_bias)
        assert not (whole_qk_norm and (qk_norm or self.has_gates)), "q and k have one norm, and rows of q no gates"
        assert not (qk_norm and config.norm_casts_last), "norms of heads cast before they multiply"
        self.whole_qk_norm = whole_qk_norm
        self.q_norm = self.k_norm = None
        if qk_norm or whole_qk_norm:
            sizes = (q_size, kv_size) if whole_qk_norm else (self.head_dim, self.head_dim)
            flags = {"plus_one": config.norm_plus_one, "casts_last": config.norm_casts_last}
            self.q_norm, self.k_norm = (RMSNorm(size, config.norm_eps, context, **flags) for size in sizes)
        self._sizes = [q_rows, kv_size, kv_size]
        self.sinks = empty_parameter(self.num_heads, context=context) if has_sinks else None
        self._rope = (rope,)  # shared by all layers; in a tuple, so that it is not a child of each
        self._kernels = context.kernels
        self._dtype = context.dtype

    @property
    def cache_spec(self) -> PagedKV:
        """Shape of this layer's keys and values."""
        return PagedKV(
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            value_dim=self.head_dim,
            dtype=self._dtype,
            window=self.window,
        )

    def forward(self, x: Tensor, batch: ForwardBatch, cache: LayerKV, attention: StepAttention) -> Tensor:
        """x [M, input_size] -> [M, H]; writes K and V of the batch into the cache first."""
        heads = self._heads(x)
        q = self._write(heads, batch, cache)
        attended = attention.attend(q, cache, scale=self.scale, window=self.window, sinks=self.sinks)
        if self.has_gates:
            attended = self._kernels.gate_heads(attended, heads)
        return self.o_proj(attended.view(x.shape[0], -1))

    def write_kv(self, x: Tensor, batch: ForwardBatch, cache: LayerKV) -> None:
        """x [M, input_size]; writes K and V of the batch into the cache, and no more."""
        self._write(self._heads(x), batch, cache)

    def _heads(self, x: Tensor) -> Tensor:
        """[M, heads of q, k and v (and gates), head_dim]."""
        rows = self.qkv_proj(x)
        if self.whole_qk_norm:
            assert self.q_norm is not None and self.k_norm is not None, "norms of q and of k"
            q, k, v = rows.split(self._sizes, dim=1)
            rows = torch.cat([self.q_norm(q), self.k_norm(k), v], dim=1)
        return rows.view(x.shape[0], -1, self.head_dim)

    def _write(self, heads: Tensor, batch: ForwardBatch, cache: LayerKV) -> Tensor:
        """Queries [M, num_heads, head_dim]."""
        norms, eps, plus_one = None, 0.0, False
        if self.q_norm is not None and self.k_norm is not None and not self.whole_qk_norm:
            norms, eps, plus_one = (self.q_norm.weight, self.k_norm.weight), self.q_norm.eps, self.q_norm.plus_one
        (rope,) = self._rope
        q: Tensor = self._kernels.rotary_and_write_kv(
            heads,
            batch.positions,
            rope.cos_sin,
            cache.k,
            cache.v,
            batch.groups[cache.group].slots,
            norms=norms,
            eps=eps,
            plus_one=plus_one,
            has_gates=self.has_gates,
        )
        return q
