"""Self-attention of a decoder whose tokens see their whole text, in both directions, without a cache."""

from typing import Any

from torch import Tensor

from outrider.attention.batch import ForwardBatch
from outrider.core.errors import UnsupportedError
from outrider.core.model_config import ModelConfig
from outrider.layers.attention import Attention
from outrider.layers.context import LayerContext


class WholeTextAttention(Attention):
    """The projections, head norms and rope of `Attention`, and attention inside each text."""

    def __init__(self, config: ModelConfig, context: LayerContext, **options: Any) -> None:
        """`options`: those of `Attention`; `window`: an odd number of tokens, with the token itself in the middle.

        Raises UnsupportedError for parts that attention inside texts does not have.
        """
        super().__init__(config, context, **options)
        if self.sinks is not None or self.has_gates:
            raise UnsupportedError(
                f"{config.architecture} with attention to later tokens is not supported: its attention has"
                f" {'sinks' if self.has_gates is False else 'gates'}. Set is_causal to true in config.json."
            )
        self._kernels = context.kernels

    def forward(self, x: Tensor, batch: ForwardBatch, cache: None, attention: Any) -> Tensor:  # type: ignore[override]
        """x [M, input_size] -> [M, H]. `attention`: the plan of `plan_texts`; nothing is kept, so there is no cache."""
        q, k, v = self._heads(x).split([self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=1)
        if self.q_norm is not None and self.k_norm is not None and not self.whole_qk_norm:
            q, k = self.q_norm(q.contiguous()), self.k_norm(k.contiguous())
        (rope,) = self._rope
        q, k = (self._kernels.rotary(heads, batch.positions, rope.cos_sin) for heads in (q, k))
        attended = self._kernels.text_attention(q, k, v, attention, scale=self.scale, window=self.window)
        return self.o_proj(attended.reshape(x.shape[0], -1))
