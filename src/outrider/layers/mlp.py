"""The gated MLP, down(act(gate x) × up x), and the plain one of encoders, down(act(up x))."""

from torch import Tensor, nn

from outrider.core.model_config import ModelConfig
from outrider.layers.context import LayerContext
from outrider.layers.linear import Linear


class GatedMLP(nn.Module):
    """Computes gate and up in one product."""

    def __init__(
        self, config: ModelConfig, context: LayerContext, *, width: int | None = None, has_pieces: bool = True
    ) -> None:
        """`width`: width of the hidden layer, if not intermediate_size. `has_pieces`: the checkpoint has gate and up as
        two tensors."""
        super().__init__()
        width = width or config.intermediate_size
        self.gate_up_proj = Linear(
            config.hidden_size,
            2 * width,
            context,
            bias=config.mlp_bias,
            pieces=(("gate_proj", width), ("up_proj", width)) if has_pieces else (),
        )
        self.down_proj = Linear(width, config.hidden_size, context, bias=config.mlp_bias)
        self._kernels = context.kernels
        names = {"silu": "silu_and_mul", "gelu_pytorch_tanh": "gelu_tanh_and_mul", "gelu": "gelu_and_mul"}
        self._act_and_mul = names[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """x [M, H] -> [M, H]."""
        act_and_mul = getattr(self._kernels, self._act_and_mul)
        return self.down_proj(act_and_mul(self.gate_up_proj(x)))


class MLP(nn.Module):
    """Up, gelu and down, with biases."""

    def __init__(self, config: ModelConfig, context: LayerContext) -> None:
        super().__init__()
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, context, bias=config.mlp_bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, context, bias=config.mlp_bias)
        self._kernels = context.kernels

    def forward(self, x: Tensor) -> Tensor:
        """x [M, H] -> [M, H]."""
        return self.down_proj(self._kernels.gelu(self.up_proj(x)))
