"""gpt-oss: windows in every second layer, sinks, biases everywhere, and a mixture of experts with a clamped gate.

Checkpoints hold all experts of a layer in one tensor, whose rows of gate and up alternate: in MXFP4 [E, 2I, H], in
bfloat16 the transpose of it, [E, H, 2I]. In memory gate rows come first, as in all families.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import (
    ClampedGate,
    ModelConfig,
    MoeConfig,
    read_dense,
    read_num_experts,
    read_rope,
    read_windows_by_kind,
)
from outrider.layers.decoder import CausalLM
from outrider.layers.moe import Experts, MoE
from outrider.layers.quantised import FLOATS
from outrider.loading.slot import Destination, Slot

ARCHITECTURES = ("GptOssForCausalLM",)

_LEFT_OUT = {
    "attention_bias": True,
    "rope_scaling": {
        "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
        "original_max_position_embeddings": 4096,
    },
}  # fmt: skip
"""Values of keys that configs may leave out."""


class PackedExperts(Experts):
    """Experts as they are released."""

    def whole(self, name: str) -> Destination | None:
        """The destination of a packed tensor. Plain weights are transposed."""
        if not name.startswith("gate_up_proj"):
            down = super().whole(name)
            return _transposed(down) if name == "down_proj" and isinstance(down, Tensor) else down
        last = "bias" if name == "gate_up_proj_bias" else name.replace("gate_up_proj", "weight")
        gate, up = (self.rows("gate_up_proj", first, self.width).get(last) for first in (0, self.width))
        if gate is None or up is None:
            return None
        both = _alternating(gate, up)
        return _transposed(both) if name == "gate_up_proj" and isinstance(gate, Tensor) else both


class PackedMoE(MoE):
    """Biases on the router and on the experts."""

    router_name = "router"
    experts_class = PackedExperts


class Model(CausalLM):
    """`GptOssForCausalLM`."""

    has_sinks = True

    def build_mlp(self, index: int) -> nn.Module:
        return PackedMoE(self.config, self.context)


def read_config(reader: ConfigReader) -> ModelConfig:
    """The shared keys; a window in every second layer, beginning with the first, where layer_types does not say it."""
    reader.assume(_LEFT_OUT)
    num_experts, top_k = read_num_experts(reader)
    reader.choice("experts_per_token", (top_k,), default=top_k)
    moe = MoeConfig(
        num_experts=num_experts,
        num_experts_per_tok=top_k,
        intermediate_size=reader.integer("intermediate_size"),
        is_normalized=True,
        clamped_gate=ClampedGate(
            alpha=reader.number("swiglu_alpha", default=1.702), limit=reader.number("swiglu_limit", default=7.0)
        ),
    )
    reader.ignore("initial_context_length", reason="the rope says the length that it is stretched from")
    windows = read_windows_by_kind(reader, is_sliding=lambda index: index % 2 == 0, default=128)
    rope = read_rope(reader, max_positions=reader.integer("max_position_embeddings"), default_theta=150000.0)
    config = read_dense(reader, model_types=("gpt_oss",), moe=moe, windows=windows, default_head_dim=64, rope=rope)
    return replace(config, norm_casts_last=True)


def _transposed(destination: Destination) -> Slot:
    """A tensor [E, N, K] whose last two dimensions are the other way round in the file."""
    shapes, dtypes, fill = _parts(destination)
    (experts, rows, columns) = shapes[0]
    return Slot(shapes=((experts, columns, rows),), dtypes=dtypes, fill=lambda found: fill(found.transpose(1, 2)))


def _alternating(gate: Destination, up: Destination) -> Slot:
    """Rows [E, I, …] of gate and of up, which take turns in the file: [E, 2I, …]."""
    (shapes, dtypes, fill_gate), (_, _, fill_up) = _parts(gate), _parts(up)

    def fill(found: Tensor) -> None:
        fill_gate(found[:, 0::2])
        fill_up(found[:, 1::2])

    return Slot(shapes=tuple((shape[0], 2 * shape[1], *shape[2:]) for shape in shapes), dtypes=dtypes, fill=fill)


def _parts(
    destination: Destination,
) -> tuple[tuple[tuple[int, ...], ...], tuple[torch.dtype, ...], Callable[[Tensor], None]]:
    """Shapes and dtypes that a file may have, and what takes the tensor."""
    if isinstance(destination, Slot):
        return destination.shapes, destination.dtypes, destination.fill
    tensor = destination

    def fill(found: Tensor) -> None:
        tensor.copy_(found)

    return (tuple(tensor.shape),), FLOATS, fill
