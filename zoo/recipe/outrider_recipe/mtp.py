"""The multi-token prediction module of Qwen3.5 as a trainable module, parameters named as in its checkpoints.

It reads the target's last hidden state and the next token, and drafts the token after it; for further drafts it
reads its own output. Knows the target only by hidden states and embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from outrider_recipe.head import attend_unrolled
from outrider_recipe.hybrid import GatedAttention, HybridShape, ShiftedRMSNorm
from outrider_recipe.network import Layer, rope_table


class MtpModule(nn.Module):
    def __init__(self, shape: HybridShape) -> None:
        super().__init__()
        self.shape = shape
        self.fc = nn.Linear(2 * shape.hidden_size, shape.hidden_size, bias=False)
        self.pre_fc_norm_embedding = ShiftedRMSNorm(shape.hidden_size, shape.norm_eps)
        self.pre_fc_norm_hidden = ShiftedRMSNorm(shape.hidden_size, shape.norm_eps)
        layer = Layer(shape, GatedAttention(shape), name="self_attn", norm=ShiftedRMSNorm)
        self.layers = nn.ModuleList([layer])
        self.norm = ShiftedRMSNorm(shape.hidden_size, shape.norm_eps)

    @property
    def draft_ids(self) -> Tensor:
        """Every target id can be drafted."""
        return torch.arange(self.shape.vocab_size, device=self.fc.weight.device)

    def initialise(self, final_norm: Tensor, seed: int) -> None:
        """Normal weights; the final norm starts as the target's, because its output meets the same embedding."""
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.parameters():
                if weight.dim() == 2:
                    weight.copy_(torch.randn(weight.shape, generator=random) * 0.5 * weight.shape[1] ** -0.5)
            self.norm.weight.copy_(final_norm)

    def unroll(self, features: Tensor, ids: Tensor, embedding: Tensor, *, num_steps: int) -> list[Tensor]:
        """See `Head.unroll`; features [rows, length, hidden_size], the target's hidden states after its final norm."""
        shape = self.shape
        layer = self.layers[0]
        assert isinstance(layer, Layer) and isinstance(layer.mixer, GatedAttention)
        attention = layer.mixer
        group = shape.num_heads // shape.num_kv_heads
        positions = torch.arange(ids.shape[1], device=ids.device)
        state = features
        keys: list[Tensor] = []
        values: list[Tensor] = []
        steps = []
        for step in range(num_steps):
            embedded = functional.embedding(ids.roll(-1 - step, dims=1), embedding).to(state.dtype)
            joined = torch.cat((self.pre_fc_norm_embedding(embedded), self.pre_fc_norm_hidden(state)), dim=-1)
            x = self.fc(joined)
            normed = layer.input_layernorm(x)
            cos, sin = rope_table(positions + step, head_dim=shape.rotary_dim, theta=shape.rope_theta)
            q, k, v = attention.project(normed, cos, sin)
            keys.append(k.repeat_interleave(group, dim=1))
            values.append(v.repeat_interleave(group, dim=1))
            state = self.norm(layer.finish(x, attention.finish(attend_unrolled(q, keys, values), normed)))
            steps.append(functional.linear(state, embedding))
        return steps
