"""Muon: momentum, then the nearest orthogonal matrix as the update (Jordan et al., 2024), for weight matrices.

Matrices of one shape are updated together in one batched product. The scale is that of Liu et al.
(arXiv 2502.16982), so that one learning rate serves Muon and AdamW.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

# Coefficients of the quintic iteration; any that bring singular values near one will do.
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def orthogonalise(x: Tensor) -> Tensor:
    """x [batch, rows, columns] -> about U Vᵀ of its singular value decomposition."""
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters: Iterable[Tensor], *, lr: float, momentum: float = 0.95, decay: float = 0.0) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for parameter in parameters:
            by_shape.setdefault(parameter.shape, []).append(parameter)
        groups = [{"params": list(same)} for same in by_shape.values()]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            matrices = group["params"]
            gradient = torch.stack([matrix.grad for matrix in matrices]).float()
            state = self.state[matrices[0]]
            if not state:
                state["momentum"] = torch.zeros_like(gradient)
            state["momentum"].lerp_(gradient, 1 - group["momentum"])
            update = gradient.lerp(state["momentum"], group["momentum"])
            precision = torch.bfloat16 if update.is_cuda else torch.float32
            update = orthogonalise(update.to(precision)).float()
            scale = 0.2 * max(update.shape[1:]) ** 0.5
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["decay"])
            torch._foreach_add_(matrices, list(update.unbind(0)), alpha=-group["lr"] * scale)


def optimisers(named: Iterable[tuple[str, Tensor]], *, lr: float, decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the inner matrices; AdamW for embeddings, heads and norms."""
    parameters = list(named)
    inner = [p for name, p in parameters if p.dim() == 2 and "embed" not in name and "lm_head" not in name]
    inner_ids = {id(p) for p in inner}
    outer = [p for _, p in parameters if id(p) not in inner_ids]
    fused = parameters[0][1].is_cuda
    return [
        Muon(inner, lr=lr, decay=decay),
        torch.optim.AdamW(outer, lr=lr, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, fused=fused),
    ]
