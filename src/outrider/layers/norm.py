"""RMSNorm with a plain weight (Llama, Qwen3, EAGLE heads)."""

from torch import Tensor, nn

from outrider.layers.context import LayerContext
from outrider.layers.linear import empty_parameter


class RMSNorm(nn.Module):
    """weight × x / sqrt(mean(x²) + eps) over the last dim."""

    def __init__(self, size: int, eps: float, context: LayerContext) -> None:
        super().__init__()
        self.eps = eps
        self._kernels = context.kernels
        self.weight = empty_parameter(size, context=context)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] -> [..., size]."""
        return self._kernels.rms_norm(x, self.weight, self.eps)

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """x, residual [M, size] -> (norm of their sum, their sum)."""
        return self._kernels.add_rms_norm(x, residual, self.weight, self.eps)
