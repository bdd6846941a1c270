"""An EAGLE-3 head run one row at a time with a growing key-value list: the slow twin of `Eagle3Head.unroll`."""

from collections.abc import Callable

import torch
from torch import Tensor

from outrider_recipe.eagle3 import Eagle3Head


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x * torch.rsqrt(x.pow(2).mean() + 1e-6)


def turn(x: Tensor, position: int, *, theta: float) -> Tensor:
    """x [heads, head_dim] rotated in NeoX halves."""
    half = x.shape[-1] // 2
    angle = position * theta ** (-torch.arange(half) * 2.0 / x.shape[-1])
    first, second = x[:, :half], x[:, half:]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Drafter:
    """Keeps keys and values of true rows; the rows of draft steps are dropped after each chain."""

    def __init__(self, head: Eagle3Head, embedding: Tensor) -> None:
        self.head, self.embedding = head, embedding
        self.rows: list[tuple[Tensor, Tensor]] = []

    def row(self, state: Tensor, *, token: int, position: int) -> Tensor:
        """One row: appends its key and value, returns the next state."""
        layer, shape = self.head.midlayer, self.head.shape
        joined = torch.cat(
            (
                rms(self.embedding[token], layer.input_layernorm.weight),
                rms(state, layer.hidden_norm.weight),
            )
        )
        attention = layer.self_attn
        q = turn((attention.q_proj.weight @ joined).view(-1, shape.head_dim), position, theta=shape.rope_theta)
        k = turn((attention.k_proj.weight @ joined).view(-1, shape.head_dim), position, theta=shape.rope_theta)
        v = (attention.v_proj.weight @ joined).view(-1, shape.head_dim)
        self.rows.append((k, v))
        group = shape.num_heads // shape.num_kv_heads
        heads = []
        for index in range(shape.num_heads):
            keys = torch.stack([key[index // group] for key, _ in self.rows])
            values = torch.stack([value[index // group] for _, value in self.rows])
            heads.append((keys @ q[index] * shape.head_dim**-0.5).softmax(dim=0) @ values)
        residual = state + attention.o_proj.weight @ torch.cat(heads)
        normed = rms(residual, layer.post_attention_layernorm.weight)
        mlp = layer.mlp
        inner = torch.nn.functional.silu(mlp.gate_proj.weight @ normed) * (mlp.up_proj.weight @ normed)
        return residual + mlp.down_proj.weight @ inner

    def logits(self, state: Tensor) -> Tensor:
        return self.head.lm_head.weight @ rms(state, self.head.norm.weight)

    def chain(
        self, features: Tensor, tokens: list[int], *, num_steps: int, choose: Callable[[int, Tensor], int]
    ) -> list[Tensor]:
        """Logits of each draft step after `tokens`, of which the last has no feature yet.

        features [at least len(tokens) - 1, 3 * hidden_size]; choose(step, logits) is the target id drafted.
        """
        assert len(self.rows) < len(tokens) - 1, "every round brings at least one new true row"
        for position in range(len(self.rows), len(tokens) - 1):
            true_state = self.head.fc.weight @ features[position]
            state = self.row(true_state, token=tokens[position + 1], position=position)
        kept, result = len(self.rows), []
        for step in range(num_steps):
            result.append(self.logits(state))
            token = choose(step, result[-1])
            if step + 1 < num_steps:
                state = self.row(state, token=token, position=len(tokens) - 1 + step)
        del self.rows[kept:]
        return result
