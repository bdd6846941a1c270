"""LayerNorm in fp32. torch computes each row by itself, in an order that follows its width alone."""

from torch import Tensor
from torch.nn import functional


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """x [M, K], weight and bias [K] -> [M, K]."""
    wide_bias = None if bias is None else bias.float()
    return functional.layer_norm(x.float().contiguous(), weight.shape, weight.float(), wide_bias, eps).to(x.dtype)
