"""The hybrid target as a trainable module: Qwen3.5's text model, three layers of Gated DeltaNet to one of attention.

States what differs from `network`; parameters are named as in its checkpoints, less the prefix. For training and
measuring; the engine serves with its own layers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from outrider_recipe.delta_rule import gated_delta_rule
from outrider_recipe.network import Attention, Backbone, Layer, Memory, RMSNorm, Shape, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridShape(Shape):
    intermediate_size: int = 320
    num_layers: int = 8
    full_attention_interval: int = 4
    partial_rotary_factor: float = 0.25
    linear_num_key_heads: int = 2
    linear_num_value_heads: int = 4
    linear_key_head_dim: int = 64
    linear_value_head_dim: int = 64
    linear_conv_kernel_dim: int = 4

    @property
    def rotary_dim(self) -> int:
        return int(self.head_dim * self.partial_rotary_factor)

    @property
    def layer_types(self) -> list[str]:
        interval = self.full_attention_interval
        kinds = ("linear_attention", "full_attention")
        return [kinds[(index + 1) % interval == 0] for index in range(self.num_layers)]


class ShiftedRMSNorm(RMSNorm):
    """Scales by 1 + weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__(size, eps)
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, (1 + self.weight).to(x.dtype), self.eps)


class GatedAttention(Attention):
    """q_proj has, for each head, the rows of the query and then those of a gate on the head's output."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.q_proj = nn.Linear(shape.hidden_size, 2 * shape.num_heads * shape.head_dim, bias=False)
        self.q_norm = ShiftedRMSNorm(shape.head_dim, shape.norm_eps)
        self.k_norm = ShiftedRMSNorm(shape.head_dim, shape.norm_eps)

    def query_weight(self) -> Tensor:
        return self._queries_and_gates()[:, 0].flatten(0, 1)

    def finish(self, mixed: Tensor, x: Tensor) -> Tensor:
        gate = functional.linear(x, self._queries_and_gates()[:, 1].flatten(0, 1))
        return self.o_proj(mixed.transpose(1, 2).flatten(2) * gate.sigmoid())

    def _queries_and_gates(self) -> Tensor:
        return self.q_proj.weight.unflatten(0, (self.shape.num_heads, 2, self.shape.head_dim))


class GatedDeltaNet(nn.Module):
    """Its memory: the last inputs of the convolution [rows, kernel - 1, channels], the state in fp32."""

    def __init__(self, shape: HybridShape) -> None:
        super().__init__()
        self.shape = shape
        hidden, heads = shape.hidden_size, shape.linear_num_value_heads
        self.key_width = shape.linear_num_key_heads * shape.linear_key_head_dim
        self.value_width = heads * shape.linear_value_head_dim
        channels, kernel = 2 * self.key_width + self.value_width, shape.linear_conv_kernel_dim
        self.in_proj_qkv = nn.Linear(hidden, channels, bias=False)
        self.in_proj_z = nn.Linear(hidden, self.value_width, bias=False)
        self.in_proj_b = nn.Linear(hidden, heads, bias=False)
        self.in_proj_a = nn.Linear(hidden, heads, bias=False)
        self.conv1d = nn.Conv1d(channels, channels, kernel, groups=channels, bias=False)
        self.A_log = nn.Parameter(torch.zeros(heads))
        self.dt_bias = nn.Parameter(torch.zeros(heads))
        self.norm = RMSNorm(shape.linear_value_head_dim, shape.norm_eps)
        self.out_proj = nn.Linear(self.value_width, hidden, bias=False)

    def initialise(self, random: torch.Generator) -> None:
        """Decays as in Mamba 2: A of 1 to 16, time steps of 0.001 to 0.1."""
        heads = self.A_log.shape[0]
        with torch.no_grad():
            self.A_log.copy_((1 + 15 * torch.rand(heads, generator=random)).log())
            steps = torch.exp(torch.rand(heads, generator=random) * 4.605 - 6.908)
            self.dt_bias.copy_(steps + (-torch.expm1(-steps)).log())  # softplus(dt_bias) = steps

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        raw = self.in_proj_qkv(x)
        before = self.shape.linear_conv_kernel_dim - 1
        padded = functional.pad(raw, (0, 0, before, 0))
        q, k, v = self._heads(self._convolve(padded, x.shape[1]))
        log_decay, beta = self._gates(x)
        if lengths is None:
            tail = padded[:, x.shape[1] :]
        else:
            is_padding = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
            k = k.masked_fill(is_padding[:, None, :, None], 0)
            log_decay = log_decay.masked_fill(is_padding[:, None], 0)
            taken = lengths[:, None] + torch.arange(before, device=x.device)
            tail = padded.take_along_dim(taken[..., None], dim=1)
        with torch.autocast(x.device.type, enabled=False):
            outputs, state = gated_delta_rule(q, k, v, log_decay=log_decay, beta=beta)
        return self._finish(outputs, x), (tail, state)

    def empty_memory(self, num_rows: int, *, capacity: int, like: Tensor) -> Memory:
        shape = self.shape
        tail = like.new_zeros(num_rows, shape.linear_conv_kernel_dim - 1, 2 * self.key_width + self.value_width)
        heads = (shape.linear_num_value_heads, shape.linear_key_head_dim, shape.linear_value_head_dim)
        return tail, like.new_zeros(num_rows, *heads, dtype=torch.float32)

    def remember(self, memory: Memory, fresh: Memory) -> None:
        for kept, new in zip(memory, fresh, strict=True):
            kept.copy_(new)

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, *, memory: Memory, lengths: Tensor) -> Tensor:
        """The recurrent form, in fp32."""
        tail, state = memory
        window = torch.cat((tail, self.in_proj_qkv(x).to(tail.dtype)), dim=1)
        tail.copy_(window[:, 1:])
        q, k, v = (part[:, :, 0].float() for part in self._heads(self._convolve(window.to(x.dtype), 1)))
        log_decay, beta = self._gates(x)  # [rows, heads, 1]
        state.mul_(log_decay.exp()[..., None])
        change = beta * (v - (state * k[..., None]).sum(dim=2))
        state.add_(k[..., None] * change[:, :, None])
        return self._finish((state * q[..., None]).sum(dim=2)[:, :, None].to(x.dtype), x)

    def _convolve(self, padded: Tensor, length: int) -> Tensor:
        """padded [rows, kernel - 1 + length, channels] -> [rows, length, channels]."""
        weight = self.conv1d.weight[:, 0].to(padded.dtype)  # [channels, kernel]
        parts = [padded[:, index : index + length] * weight[:, index] for index in range(weight.shape[1])]
        return functional.silu(torch.stack(parts).sum(dim=0))

    def _heads(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v of every value head [rows, heads, length, head_dim]; q and k of norm 1, q scaled."""
        shape = self.shape
        q, k, v = mixed.split((self.key_width, self.key_width, self.value_width), dim=-1)
        q, k = (x.unflatten(-1, (shape.linear_num_key_heads, -1)).transpose(1, 2) for x in (q, k))
        v = v.unflatten(-1, (shape.linear_num_value_heads, -1)).transpose(1, 2)
        group = shape.linear_num_value_heads // shape.linear_num_key_heads
        q = _unit(q) * shape.linear_key_head_dim**-0.5
        return q.to(v.dtype).repeat_interleave(group, 1), _unit(k).to(v.dtype).repeat_interleave(group, 1), v

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log_decay and beta [rows, heads, length], fp32."""
        weight = torch.cat((self.in_proj_a.weight, self.in_proj_b.weight))
        a, b = functional.linear(x, weight).float().transpose(1, 2).chunk(2, dim=1)
        steps = functional.softplus(a + self.dt_bias.float()[:, None])
        return -self.A_log.float().exp()[:, None] * steps, b.sigmoid()

    def _finish(self, outputs: Tensor, x: Tensor) -> Tensor:
        """outputs [rows, heads, length, head_dim] of input x: normed per head, gated, projected."""
        normed = self.norm(outputs.transpose(1, 2)).flatten(2)
        return self.out_proj(normed * functional.silu(self.in_proj_z(x)))


def _unit(x: Tensor) -> Tensor:
    x = x.float()
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + 1e-6)


class Hybrid(Target):
    """`state_dict()` has the names of a Qwen3.5 checkpoint with tied embeddings, less `language_model.`"""

    shape: HybridShape

    def __init__(self, shape: HybridShape) -> None:
        super().__init__(shape)

    def build(self) -> Backbone:
        shape = self.shape
        layers = [
            Layer(shape, GatedDeltaNet(shape), name="linear_attn", norm=ShiftedRMSNorm)
            if kind == "linear_attention"
            else Layer(shape, GatedAttention(shape), name="self_attn", norm=ShiftedRMSNorm)
            for kind in shape.layer_types
        ]
        return Backbone(shape, layers, ShiftedRMSNorm(shape.hidden_size, shape.norm_eps))

    def initialise(self, seed: int) -> None:
        super().initialise(seed)
        random = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, GatedDeltaNet):
                module.initialise(random)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids [rows, length] -> final-normed hidden [rows, length, hidden_size], twice: it is what MTP sees."""
        hidden = self.hidden(ids)
        return hidden, hidden
