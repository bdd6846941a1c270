"""The gated MLP: down(act(gate x) × up x), act being silu or gelu in its tanh form."""

from torch import Tensor, nn

from outrider.core.model_config import ModelConfig
from outrider.layers.context import LayerContext
from outrider.layers.linear import Linear


class GatedMLP(nn.Module):
    """Computes gate and up in one product."""

    def __init__(self, config: ModelConfig, context: LayerContext, *, width: int | None = None) -> None:
        """`width`: width of the hidden layer, if not intermediate_size."""
        super().__init__()
        width = width or config.intermediate_size
        self.gate_up_proj = Linear(
            config.hidden_size,
            2 * width,
            context,
            bias=config.mlp_bias,
            pieces=(("gate_proj", width), ("up_proj", width)),
        )
        self.down_proj = Linear(width, config.hidden_size, context, bias=config.mlp_bias)
        kernels = context.kernels
        gates = {"silu": kernels.silu_and_mul, "gelu_pytorch_tanh": kernels.gelu_tanh_and_mul}
        self._act_and_mul = gates[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """x [M, H] -> [M, H]."""
        return self.down_proj(self._act_and_mul(self.gate_up_proj(x)))
