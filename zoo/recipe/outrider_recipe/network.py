"""The target as a trainable module: Qwen3 dense, parameters named as in its checkpoints.

Three ways to run it: `forward` over whole windows with what a drafter sees, and `prefill` / `step` over a
cache for sampling. It is for training and measuring; the engine serves with its own layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    vocab_size: int = 3072
    hidden_size: int = 256
    intermediate_size: int = 704
    num_layers: int = 10
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 64
    rope_theta: float = 100_000.0
    norm_eps: float = 1e-6
    max_length: int = 2048

    @property
    def rotary_dim(self) -> int:
        """Width of the part of a head that is rotated by position."""
        return self.head_dim

    @property
    def taps(self) -> tuple[int, int, int]:
        """The EAGLE-3 default: hidden states after this many layers."""
        return (2, self.num_layers // 2, self.num_layers - 3)


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class GatedMLP(nn.Module):
    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = functional.linear(x, torch.cat((self.gate_proj.weight, self.up_proj.weight))).chunk(2, dim=-1)
        return self.down_proj(functional.silu(gate) * up)


def rope_table(positions: Tensor, *, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin, [*positions.shape, head_dim / 2], fp32."""
    steps = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    angles = positions.float()[..., None] * theta ** (-steps / head_dim)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """NeoX halves of the first 2 * cos.shape[-1] parts of x [..., head_dim]; the rest stays. Computed in fp32."""
    width = 2 * cos.shape[-1]
    first, second = x[..., :width].float().chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
    return turned if width == x.shape[-1] else torch.cat((turned, x[..., width:]), dim=-1)


Memory = tuple[Tensor, Tensor]
"""State that a layer keeps for each row. Attention: keys and values [num_rows, num_kv_heads, capacity, head_dim]."""


class Mixer(Protocol):
    """The part of a layer that reads other tokens."""

    def empty_memory(self, num_rows: int, *, capacity: int, like: Tensor) -> Memory: ...

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, lengths: Tensor | None) -> tuple[Tensor, Memory]:
        """x [rows, length, hidden_size] from position 0 -> what is added to it, and what is to be remembered.

        lengths [rows]: where the rows are padded on the right, their true lengths.
        """
        ...

    def remember(self, memory: Memory, fresh: Memory) -> None:
        """Write what `__call__` gave into an empty memory."""
        ...

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, *, memory: Memory, lengths: Tensor) -> Tensor:
        """One token per row, x [rows, 1, hidden_size], at position `lengths` [rows]; it is remembered."""
        ...


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, kv_width = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, width, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, kv_width, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, kv_width, bias=False)
        self.o_proj = nn.Linear(width, shape.hidden_size, bias=False)
        self.q_norm = RMSNorm(shape.head_dim, shape.norm_eps)
        self.k_norm = RMSNorm(shape.head_dim, shape.norm_eps)

    def query_weight(self) -> Tensor:
        """[num_heads * head_dim, hidden_size]"""
        return self.q_proj.weight

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q [rows, num_heads, length, head_dim]; k and v [rows, num_kv_heads, length, head_dim]."""
        shape = self.shape
        weight = torch.cat((self.query_weight(), self.k_proj.weight, self.v_proj.weight))
        heads = functional.linear(x, weight).unflatten(-1, (-1, shape.head_dim)).transpose(1, 2)
        q, k, v = heads.split((shape.num_heads, shape.num_kv_heads, shape.num_kv_heads), dim=1)
        return rotate(self.q_norm(q), cos, sin), rotate(self.k_norm(k), cos, sin), v

    def finish(self, mixed: Tensor, x: Tensor) -> Tensor:
        """mixed [rows, num_heads, length, head_dim] for input x -> [rows, length, hidden_size]."""
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Causal over the whole window; padding on the right changes nothing, so `lengths` is not needed."""
        q, k, v = self.project(x, cos, sin)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.finish(mixed, x), (k, v)

    def empty_memory(self, num_rows: int, *, capacity: int, like: Tensor) -> Memory:
        size = (num_rows, self.shape.num_kv_heads, capacity, self.shape.head_dim)
        return like.new_zeros(size), like.new_zeros(size)

    def remember(self, memory: Memory, fresh: Memory) -> None:
        for kept, new in zip(memory, fresh, strict=True):
            kept[:, :, : new.shape[2]] = new

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, *, memory: Memory, lengths: Tensor) -> Tensor:
        """Writes the token's key and value and attends up to it."""
        keys, values = memory
        q, k, v = self.project(x, cos, sin)
        rows = torch.arange(x.shape[0], device=x.device)
        keys[rows, :, lengths] = k[:, :, 0].to(keys.dtype)
        values[rows, :, lengths] = v[:, :, 0].to(values.dtype)
        visible = torch.arange(keys.shape[2], device=x.device) <= lengths[:, None]  # [rows, capacity]
        grouped = q.to(keys.dtype).view(x.shape[0], self.shape.num_kv_heads, -1, self.shape.head_dim)
        mixed = functional.scaled_dot_product_attention(grouped, keys, values, attn_mask=visible[:, None, None])
        return self.finish(mixed.reshape(x.shape[0], -1, 1, self.shape.head_dim).to(x.dtype), x)


class Layer(nn.Module):
    """norm, mixer, norm, MLP. The mixer goes by the name that it has in checkpoints."""

    def __init__(self, shape: Shape, mixer: nn.Module, *, name: str, norm: type[RMSNorm]) -> None:
        super().__init__()
        self.mixer_name = name
        self.add_module(name, mixer)
        self.mlp = GatedMLP(shape.hidden_size, shape.intermediate_size)
        self.input_layernorm = norm(shape.hidden_size, shape.norm_eps)
        self.post_attention_layernorm = norm(shape.hidden_size, shape.norm_eps)

    @property
    def mixer(self) -> Mixer:
        mixer: Mixer = getattr(self, self.mixer_name)
        return mixer

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        mixed, fresh = self.mixer(self.input_layernorm(x), cos, sin, lengths)
        return self.finish(x, mixed), fresh

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, *, memory: Memory, lengths: Tensor) -> Tensor:
        mixed = self.mixer.step(self.input_layernorm(x), cos, sin, memory=memory, lengths=lengths)
        return self.finish(x, mixed)


class Backbone(nn.Module):
    def __init__(self, shape: Shape, layers: Sequence[Layer], norm: RMSNorm) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(layers)
        self.norm = norm


class Target(nn.Module):
    """`state_dict()` has the names of a Qwen3 checkpoint with tied embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = self.build()

    def build(self) -> Backbone:
        shape = self.shape
        layers = [Layer(shape, Attention(shape), name="self_attn", norm=RMSNorm) for _ in range(shape.num_layers)]
        return Backbone(shape, layers, RMSNorm(shape.hidden_size, shape.norm_eps))

    def initialise(self, seed: int) -> None:
        """Normal weights, outputs of residual branches scaled down with depth."""
        random = torch.Generator().manual_seed(seed)
        depth = (2 * self.shape.num_layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                scale = 0.02 if "embed" in name else weight.shape[1] ** -0.5 * 0.6
                scale *= depth if name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight")) else 1.0
                with torch.no_grad():
                    weight.copy_(torch.randn(weight.shape, generator=random) * scale)

    def compile_layers(self) -> None:
        """Compile layer by layer: layers of a kind share their code, so it takes seconds instead of minutes."""
        for layer in self._layers():
            layer.compile(dynamic=False)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden after the final norm [..., hidden_size] -> [..., vocab_size]."""
        return functional.linear(hidden, self.model.embed_tokens.weight)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids [rows, length] -> final-normed hidden, and the features of a drafter: here the taps side by side.

        [rows, length, hidden_size] and [rows, length, 3 * hidden_size].
        """
        states = self._states(ids)
        return self.model.norm(states[-1]), torch.cat([states[count] for count in self.shape.taps], dim=-1)

    def hidden(self, ids: Tensor) -> Tensor:
        """ids [rows, length] -> final-normed hidden alone."""
        return self.model.norm(self._states(ids)[-1])

    def _states(self, ids: Tensor) -> list[Tensor]:
        """The residual stream before the first layer and after each."""
        cos, sin = self._rope(torch.arange(ids.shape[1], device=ids.device))
        states = [self.model.embed_tokens(ids)]
        for layer in self._layers():
            states.append(layer(states[-1], cos, sin)[0])
        return states

    def empty_cache(self, num_rows: int, *, capacity: int, like: Tensor) -> list[Memory]:
        """One memory for each layer; keys and values have the dtype of `like`."""
        return [layer.mixer.empty_memory(num_rows, capacity=capacity, like=like) for layer in self._layers()]

    def prefill(self, ids: Tensor, cache: Sequence[Memory], *, lengths: Tensor | None = None) -> Tensor:
        """Right-padded ids [rows, length] from position 0 -> final-normed hidden of every position."""
        cos, sin = self._rope(torch.arange(ids.shape[1], device=ids.device))
        x = self.model.embed_tokens(ids)
        for layer, memory in zip(self._layers(), cache, strict=True):
            x, fresh = layer(x, cos, sin, lengths)
            layer.mixer.remember(memory, fresh)
        return self.model.norm(x)

    def step(self, ids: Tensor, cache: Sequence[Memory], *, lengths: Tensor) -> Tensor:
        """One more token ids [rows] at positions `lengths` [rows] -> final-normed hidden [rows, hidden_size]."""
        cos, sin = self._rope(lengths[:, None, None])
        x = self.model.embed_tokens(ids[:, None])
        for layer, memory in zip(self._layers(), cache, strict=True):
            x = layer.step(x, cos, sin, memory=memory, lengths=lengths)
        return self.model.norm(x)[:, 0]

    def _layers(self) -> list[Layer]:
        return list(self.model.layers)  # type: ignore[arg-type]

    def _rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return rope_table(positions, head_dim=self.shape.rotary_dim, theta=self.shape.rope_theta)
