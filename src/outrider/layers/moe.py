"""The mixture of experts: a router, its experts, and where a model has one the expert that every token goes to.

    y = Σ wⱼ MLPⱼ(x) over the router's choice, in its order;   with a shared expert  y + σ(g x) · MLP(x)

The router and the shared expert's gate are one product in fp32. Which kernel runs which expert is not known here.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from outrider.core.model_config import ModelConfig
from outrider.layers.context import LayerContext
from outrider.layers.linear import Linear
from outrider.layers.mlp import GatedMLP


class Experts(nn.Module):
    """The gated MLPs of all experts. A checkpoint holds them packed, or expert by expert."""

    def __init__(self, num_experts: int, hidden_size: int, width: int, context: LayerContext) -> None:
        super().__init__()

        def empty(output_size: int, input_size: int) -> nn.Parameter:
            weights = context.kernels.empty_expert_weights(
                num_experts, output_size, input_size, dtype=context.dtype, device=context.device
            )
            return nn.Parameter(weights, requires_grad=False)

        self.gate_up_proj = empty(2 * width, hidden_size)  # [E, 2 × width, hidden_size], gate rows first
        self.down_proj = empty(hidden_size, width)  # [E, hidden_size, width]

    def parts(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Views of every expert's own weights."""
        gate_up = {}
        for i, weight in enumerate(self.gate_up_proj.data):
            gate_up[f"{i}.gate_proj.weight"], gate_up[f"{i}.up_proj.weight"] = weight.chunk(2)
        down = {f"{i}.down_proj.weight": weight for i, weight in enumerate(self.down_proj.data)}
        return {"gate_up_proj": gate_up, "down_proj": down}


class MoE(nn.Module):
    """The MLP of a layer in a model with experts."""

    def __init__(self, config: ModelConfig, context: LayerContext) -> None:
        super().__init__()
        assert config.moe is not None, f"{config.architecture} has no experts"
        self.config = config.moe
        self._kernels = context.kernels
        num_experts, shared = config.moe.num_experts, config.moe.shared_intermediate_size
        pieces = (("gate", num_experts), ("shared_expert_gate", 1)) if shared else (("gate", num_experts),)
        self.router = Linear(config.hidden_size, num_experts + bool(shared), context, pieces=pieces)
        self.experts = Experts(num_experts, config.hidden_size, config.moe.intermediate_size, context)
        self.shared_expert = GatedMLP(config, context, width=shared) if shared else None

    def forward(self, x: Tensor) -> Tensor:
        """x [M, H] -> [M, H]."""
        num_experts = self.config.num_experts
        logits = self.router(x, out_dtype=torch.float32)
        routing = self._kernels.route(
            logits[:, :num_experts], top_k=self.config.num_experts_per_tok, is_normalized=self.config.is_normalized
        )
        y = self._kernels.experts(x, self.experts.gate_up_proj, self.experts.down_proj, routing)
        if self.shared_expert is None:
            return y
        return self._kernels.add_gated(y, self.shared_expert(x), logits[:, num_experts])
