"""Routes each token to experts of its best groups, with weights."""

from typing import Literal

import torch
from torch import Tensor

from outrider.kernels.reference.routing import Routing
from outrider.kernels.reference.row_sum import row_sum


def route_grouped(
    logits: Tensor,
    bias: Tensor | None = None,
    *,
    top_k: int,
    scoring: Literal["sigmoid", "softmax"],
    num_groups: int,
    num_chosen_groups: int,
    is_normalized: bool,
    scale: float,
) -> Routing:
    """logits [T, E] fp32, bias [E] fp32 -> the top_k experts of each token in its best groups.

    Formulas: `scores` and the choice of groups are those of DeepSeek-V3 (sigmoid, arXiv 2412.19437) and DeepSeek-V2
    (softmax, arXiv 2405.04434). Sums have a fixed order. Experts of other groups are never chosen, whatever the bias.
    """
    if scoring == "sigmoid":
        scores = 1.0 / (1.0 + (-logits).contiguous().exp_())  # torch's sigmoid depends on an element's place in memory
    else:
        exps = (logits - logits.amax(dim=1, keepdim=True)).contiguous().exp_()
        scores = exps / row_sum(exps)
    choice = scores if bias is None else scores + bias
    by_group = choice.unflatten(1, (num_groups, -1))
    best = torch.sort(by_group, dim=2, descending=True, stable=True).values
    worth = best[:, :, 0] + best[:, :, 1] if scoring == "sigmoid" else best[:, :, 0]
    order = torch.sort(worth, dim=1, descending=True, stable=True).indices
    is_left_out = torch.ones_like(worth, dtype=torch.bool).scatter_(1, order[:, :num_chosen_groups], False)
    choice = by_group.masked_fill(is_left_out.unsqueeze(2), -torch.inf).flatten(1)
    ids = torch.sort(choice, dim=1, descending=True, stable=True).indices[:, :top_k]
    weights = scores.gather(1, ids)
    if is_normalized:
        total = torch.zeros_like(weights[:, :1])
        for i in range(top_k):
            total = total + weights[:, i : i + 1]
        weights = weights / (total + 1e-20)
    return Routing(weights * scale, ids.int())
