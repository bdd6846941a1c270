"""RMSNorm, with a plain weight (Llama, Qwen3, EAGLE heads) or one that is added to 1 (Qwen3-Next, Qwen3.5, Gemma), and
the LayerNorm of encoders."""

from torch import Tensor, nn

from outrider.layers.context import LayerContext
from outrider.layers.linear import empty_parameter


class RMSNorm(nn.Module):
    """weight × x / sqrt(mean(x²) + eps) over the last dim; with `plus_one`, (1 + weight) × that. With `casts_last` the
    product with the weight is fp32, too."""

    def __init__(
        self, size: int, eps: float, context: LayerContext, *, plus_one: bool = False, casts_last: bool = False
    ) -> None:
        super().__init__()
        self.eps = eps
        self.plus_one = plus_one
        self.casts_last = casts_last
        self._kernels = context.kernels
        self.weight = empty_parameter(size, context=context)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] -> [..., size]."""
        return self._kernels.rms_norm(x, self.weight, self.eps, plus_one=self.plus_one, casts_last=self.casts_last)

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """x, residual [M, size] -> (norm of their sum, their sum)."""
        return self._kernels.add_rms_norm(
            x, residual, self.weight, self.eps, plus_one=self.plus_one, casts_last=self.casts_last
        )


class LayerNorm(nn.Module):
    """weight × (x - mean) / sqrt(variance + eps) + bias over the last dim."""

    def __init__(self, size: int, eps: float, context: LayerContext, *, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self._kernels = context.kernels
        self.weight = empty_parameter(size, context=context)
        self.bias = empty_parameter(size, context=context) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x [M, size] -> [M, size]."""
        return self._kernels.layer_norm(x, self.weight, self.bias, self.eps)
