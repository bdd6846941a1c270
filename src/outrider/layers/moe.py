"""The mixture of experts: a router, its experts, and the shared expert of the models that have one.

    y = Σ wⱼ MLPⱼ(x) over the chosen experts, in the router's order;   with a shared expert  y + σ(g x) · MLP(x)

The router and the shared expert's gate are one product in fp32.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from outrider.core.model_config import ModelConfig
from outrider.kernels.interface.model import Routing
from outrider.layers.context import LayerContext
from outrider.layers.linear import Linear
from outrider.layers.mlp import GatedMLP
from outrider.layers.weight_format import Weight, find_format


class Experts(nn.Module):
    """The gated MLPs of all experts. A checkpoint holds them packed, or expert by expert."""

    takes_whole = True
    """A checkpoint may hold one packed tensor of all experts."""

    def __init__(self, num_experts: int, hidden_size: int, width: int, context: LayerContext) -> None:
        super().__init__()
        self.width = width
        self._kernels = context.kernels
        self._format = context.weight_format

        def empty(output_size: int, input_size: int) -> Weight:
            return self._format.empty(
                context.kernels,
                output_size,
                input_size,
                dtype=context.dtype,
                device=context.device,
                num_experts=num_experts,
            )

        self._gate_up = empty(2 * width, hidden_size)  # [E, 2 × width, hidden_size], gate rows first
        self._down = empty(hidden_size, width)  # [E, hidden_size, width]
        for projection, weight in (("gate_up_proj", self._gate_up), ("down_proj", self._down)):
            for name, tensor in self._format.rows(weight, 0, weight.whole_shape[0]).items():
                parameter = nn.Parameter(tensor, requires_grad=False)
                self.register_parameter(_packed(projection, name), parameter)

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """x [M, hidden_size] -> [M, hidden_size], the weighted sum of each token's experts."""
        return self._format.experts(self._kernels, x, self._gate_up, self._down, routing)

    def parts(self, prefix: str) -> Mapping[str, Mapping[str, Tensor]]:
        """For each packed parameter, the tensors of every expert by their names in the checkpoint."""
        found: dict[str, dict[str, Tensor]] = {}
        for projection, packed, weight, first, rows in (
            ("gate_proj", "gate_up_proj", self._gate_up, 0, self.width),
            ("up_proj", "gate_up_proj", self._gate_up, self.width, self.width),
            ("down_proj", "down_proj", self._down, 0, self._down.whole_shape[0]),
        ):
            for name, views in self._format.rows(weight, first, rows).items():
                parts = found.setdefault(_packed(packed, name), {})
                parts |= {f"{prefix}.{i}.{projection}.{name}": view for i, view in enumerate(views)}
        return found


def _packed(projection: str, name: str) -> str:
    """Name of a packed tensor of all experts: `gate_up_proj`, `gate_up_proj_scale`."""
    return projection + name.removeprefix("weight")


class MoE(nn.Module):
    """The MLP of a layer in a model with experts."""

    def __init__(self, config: ModelConfig, context: LayerContext) -> None:
        super().__init__()
        assert config.moe is not None, f"{config.architecture} has no experts"
        self.config = config.moe
        self._kernels = context.kernels
        num_experts, shared = config.moe.num_experts, config.moe.shared_intermediate_size
        pieces = (("gate", num_experts), ("shared_expert_gate", 1)) if shared else (("gate", num_experts),)
        self.router = Linear(
            config.hidden_size,
            num_experts + bool(shared),
            context,
            pieces=pieces,
            weight_format=find_format("plain"),
        )
        self.experts = Experts(num_experts, config.hidden_size, config.moe.intermediate_size, context)
        self.shared_expert = GatedMLP(config, context, width=shared) if shared else None

    def forward(self, x: Tensor) -> Tensor:
        """x [M, H] -> [M, H]."""
        num_experts = self.config.num_experts
        logits = self.router(x, out_dtype=torch.float32)
        routing = self._kernels.route(
            logits[:, :num_experts], top_k=self.config.num_experts_per_tok, is_normalized=self.config.is_normalized
        )
        y = self.experts(x, routing)
        if self.shared_expert is None:
            return y
        return self._kernels.add_gated(y, self.shared_expert(x), logits[:, num_experts])
