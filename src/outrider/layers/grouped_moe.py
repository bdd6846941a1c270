"""A mixture of experts whose router keeps the best groups, beside experts that every token goes to, without a gate.

    y = Σ wⱼ MLPⱼ(x) over the chosen experts, in the router's order, + MLP_shared(x)

Sources: DeepSeek-V2, arXiv 2405.04434; DeepSeek-V3, arXiv 2412.19437.
"""

import torch
from torch import Tensor, nn

from outrider.core.model_config import ModelConfig
from outrider.layers.context import LayerContext
from outrider.layers.linear import Linear
from outrider.layers.mlp import GatedMLP
from outrider.layers.moe import Experts
from outrider.layers.weight_format import find_format


class GroupedRouter(Linear):
    """The logits of all experts in fp32, and the numbers that the choice adds to their scores."""

    def __init__(self, hidden_size: int, num_experts: int, context: LayerContext, *, has_bias: bool) -> None:
        super().__init__(hidden_size, num_experts, context, weight_format=find_format("plain"))
        self.e_score_correction_bias = None
        if has_bias:
            bias = torch.empty(num_experts, dtype=torch.float32, device=context.device)
            self.e_score_correction_bias = nn.Parameter(bias, requires_grad=False)


class GroupedMoE(nn.Module):
    """The MLP of a layer, with the names of its checkpoints."""

    def __init__(self, config: ModelConfig, context: LayerContext) -> None:
        super().__init__()
        assert config.moe is not None and config.moe.grouped is not None, f"{config.architecture} has no groups"
        self.config, self.grouped = config.moe, config.moe.grouped
        self._kernels = context.kernels
        size, num_experts = config.hidden_size, config.moe.num_experts
        self.gate = GroupedRouter(size, num_experts, context, has_bias=self.grouped.has_bias)
        self.experts = Experts(num_experts, size, config.moe.intermediate_size, context)
        shared = config.moe.shared_intermediate_size
        self.shared_experts = GatedMLP(config, context, width=shared) if shared else None

    def forward(self, x: Tensor) -> Tensor:
        """x [M, H] -> [M, H]."""
        routing = self._kernels.route_grouped(
            self.gate(x, out_dtype=torch.float32),
            self.gate.e_score_correction_bias,
            top_k=self.config.num_experts_per_tok,
            scoring=self.grouped.scoring,
            num_groups=self.grouped.num_groups,
            num_chosen_groups=self.grouped.num_chosen_groups,
            is_normalized=self.config.is_normalized,
            scale=self.grouped.scale,
        )
        y = self.experts(x, routing)
        return y if self.shared_experts is None else y + self.shared_experts(x)
