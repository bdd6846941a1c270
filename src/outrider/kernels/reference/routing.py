"""Routes each token to its experts, with weights."""

from typing import NamedTuple

import torch
from torch import Tensor

from outrider.kernels.reference.row_sum import row_sum


class Routing(NamedTuple):
    """Experts of each token, in the order of its router."""

    weights: Tensor  # [T, K] fp32
    ids: Tensor  # [T, K] int32


def route(logits: Tensor, *, top_k: int, is_normalized: bool) -> Routing:
    """logits [T, E] fp32 -> the top_k experts of each token, by (logit descending, expert ascending).

    Weights are the softmax over all experts or, if normalized, over the chosen ones, which equals dividing by their
    sum; all in fp32, and the sum of the chosen is taken in their order. NaN counts as the largest logit.
    """
    values, order = torch.sort(logits, dim=1, descending=True, stable=True)
    exps = (values - values[:, :1]).contiguous().exp_()
    chosen = exps[:, :top_k]
    if is_normalized:
        total = torch.zeros_like(chosen[:, :1])
        for i in range(top_k):
            total = total + chosen[:, i : i + 1]
    else:
        total = row_sum(exps)
    return Routing(chosen / total, order[:, :top_k].int())
