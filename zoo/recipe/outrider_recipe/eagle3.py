"""An EAGLE-3 head (arXiv 2503.01840) as a trainable module, parameters named as in the original format.

`unroll` runs the training-time test: draft step i of every position at once, each attending to the true
rows up to its own and to its own earlier draft steps. Knows the target only by features and embedding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from outrider_recipe.head import attend_unrolled
from outrider_recipe.network import GatedMLP, RMSNorm, Shape, rope_table, rotate


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadShape:
    vocab_size: int = 3072
    draft_vocab_size: int = 2560
    hidden_size: int = 256
    intermediate_size: int = 1536
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 64
    rope_theta: float = 10_000.0  # the head's own; deliberately not the target's
    norm_eps: float = 1e-6
    max_length: int = 2048

    @classmethod
    def beside(cls, target: Shape, *, draft_vocab_size: int, intermediate_size: int) -> "HeadShape":
        return cls(
            vocab_size=target.vocab_size,
            draft_vocab_size=draft_vocab_size,
            hidden_size=target.hidden_size,
            intermediate_size=intermediate_size,
            num_heads=target.num_heads,
            num_kv_heads=target.num_kv_heads,
            head_dim=target.head_dim,
            norm_eps=target.norm_eps,
            max_length=target.max_length,
        )


class DraftAttention(nn.Module):
    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        width, kv_width = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        self.q_proj = nn.Linear(2 * shape.hidden_size, width, bias=False)
        self.k_proj = nn.Linear(2 * shape.hidden_size, kv_width, bias=False)
        self.v_proj = nn.Linear(2 * shape.hidden_size, kv_width, bias=False)
        self.o_proj = nn.Linear(width, shape.hidden_size, bias=False)

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [rows, length, 2 * hidden_size] -> q, k, v, all [rows, num_heads, length, head_dim] (kv repeated)."""
        shape = self.shape
        weight = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        heads = functional.linear(x, weight).unflatten(-1, (-1, shape.head_dim)).transpose(1, 2)
        q, k, v = heads.split((shape.num_heads, shape.num_kv_heads, shape.num_kv_heads), dim=1)
        cos, sin = rope_table(positions, head_dim=shape.head_dim, theta=shape.rope_theta)
        group = shape.num_heads // shape.num_kv_heads
        k = rotate(k, cos, sin).repeat_interleave(group, dim=1)
        return rotate(q, cos, sin), k, v.repeat_interleave(group, dim=1)


class MidLayer(nn.Module):
    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.hidden_norm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.self_attn = DraftAttention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.mlp = GatedMLP(shape.hidden_size, shape.intermediate_size)

    def project(self, embedded: Tensor, state: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        joined = torch.cat((self.input_layernorm(embedded), self.hidden_norm(state)), dim=-1)
        return self.self_attn.project(joined, positions)

    def finish(self, state: Tensor, mixed: Tensor) -> Tensor:
        """mixed [rows, num_heads, length, head_dim] -> the next state, before the head's norm."""
        residual = state + self.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
        return residual + self.mlp(self.post_attention_layernorm(residual))


class Eagle3Head(nn.Module):
    d2t: Tensor  # [draft_vocab_size] int64: target id minus draft id
    t2d: Tensor  # [vocab_size] bool: target ids that can be drafted

    def __init__(self, shape: HeadShape, *, draft_ids: Tensor) -> None:
        super().__init__()
        assert draft_ids.shape == (shape.draft_vocab_size,), f"{draft_ids.shape} for {shape.draft_vocab_size} ids"
        self.shape = shape
        self.fc = nn.Linear(3 * shape.hidden_size, shape.hidden_size, bias=False)
        self.midlayer = MidLayer(shape)
        self.norm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.lm_head = nn.Linear(shape.hidden_size, shape.draft_vocab_size, bias=False)
        draft_ids = draft_ids.sort().values
        marks = torch.zeros(shape.vocab_size, dtype=torch.bool, device=draft_ids.device)
        marks[draft_ids] = True
        self.register_buffer("d2t", draft_ids - torch.arange(shape.draft_vocab_size, device=draft_ids.device))
        self.register_buffer("t2d", marks)

    @property
    def draft_ids(self) -> Tensor:
        """[draft_vocab_size] the target id of each draft id."""
        return self.d2t + torch.arange(self.shape.draft_vocab_size, device=self.d2t.device)

    def initialise(self, embedding: Tensor, seed: int) -> None:
        """Normal weights; the vocabulary head starts as the target's embedding rows."""
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.dim() == 2 and "lm_head" not in name:
                    scale = 0.5 * weight.shape[1] ** -0.5
                    weight.copy_(torch.randn(weight.shape, generator=random) * scale)
            self.lm_head.weight.copy_(embedding[self.draft_ids])

    def unroll(self, features: Tensor, ids: Tensor, embedding: Tensor, *, num_steps: int) -> list[Tensor]:
        """See `Head.unroll`; features [rows, length, 3 * hidden_size]."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        state = self.fc(features)
        keys: list[Tensor] = []
        values: list[Tensor] = []
        steps = []
        for step in range(num_steps):
            embedded = functional.embedding(ids.roll(-1 - step, dims=1), embedding).to(state.dtype)
            q, k, v = self.midlayer.project(embedded, state, positions + step)
            keys.append(k)
            values.append(v)
            mixed = attend_unrolled(q, keys, values)
            state = self.midlayer.finish(state, mixed)
            steps.append(self.lm_head(self.norm(state)))
        return steps
