"""The gated delta rule (Gated DeltaNet, arXiv 2412.06464) of whole windows, in chunks, for training.

A state S [key_dim, value_dim] per head: S ← e^g S, then S ← S + k (β (v - Sᵀk))ᵀ, and the output is Sᵀq. Chunks are
made independent of each other up to one product: S_after = carry · S_before + added. Knows nothing of layers.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 64  # tokens
_FIRST_BLOCK = 8  # of a triangular matrix: small enough that its powers lose nothing in fp32


class _UnitLowerInverse(torch.autograd.Function):
    """Backward is two products, not the way back through the construction."""

    @staticmethod
    def forward(ctx: Any, lower: Tensor) -> Tensor:
        inverse = _build_inverse(lower)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        return -(inverse.mT @ gradient @ inverse.mT)


class _Scan(torch.autograd.Function):
    """One product per chunk in either direction; the gradients of `carry` come from one batched product."""

    @staticmethod
    def forward(ctx: Any, carry: Tensor, added: Tensor) -> Tensor:
        states = [torch.zeros_like(added[:, :, 0])]
        for index in range(added.shape[2]):
            states.append(carry[:, :, index] @ states[-1] + added[:, :, index])
        stacked = torch.stack(states, dim=2)
        ctx.save_for_backward(carry, stacked)
        return stacked

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        carry, states = ctx.saved_tensors
        arriving = gradient[:, :, -1]
        reached = []
        for index in reversed(range(carry.shape[2])):
            reached.append(arriving)
            arriving = carry[:, :, index].mT @ arriving + gradient[:, :, index]
        of_added = torch.stack(reached[::-1], dim=2)
        return of_added @ states[:, :, :-1].mT, of_added


def unit_lower_inverse(lower: Tensor) -> Tensor:
    """(I + lower)^-1 for strictly lower triangular matrices lower [..., CHUNK, CHUNK], fp32."""
    inverse: Tensor = _UnitLowerInverse.apply(lower)
    return inverse


def scan(carry: Tensor, added: Tensor) -> Tensor:
    """S_0 = 0, S_i+1 = carry_i · S_i + added_i: all of them, [rows, heads, chunks + 1, key_dim, value_dim].

    carry [rows, heads, chunks, key_dim, key_dim]; added [rows, heads, chunks, key_dim, value_dim].
    """
    states: Tensor = _Scan.apply(carry, added)
    return states


def _build_inverse(lower: Tensor) -> Tensor:
    """Blocks on the diagonal by (I - L)(I + L²)(I + L⁴), then pairs of blocks are joined until one is left."""
    inverse = _blocks(lower, _FIRST_BLOCK, below=False)
    power = inverse @ inverse
    inverse = torch.eye(_FIRST_BLOCK, device=lower.device) - inverse
    inverse = inverse + inverse @ power
    inverse = inverse + inverse @ (power @ power)
    size = _FIRST_BLOCK
    while size < lower.shape[-1]:
        upper, under = inverse[..., 0::2, :, :], inverse[..., 1::2, :, :]
        joint = -under @ _blocks(lower, size, below=True) @ upper
        top = functional.pad(upper, (0, size))
        inverse = torch.cat((top, torch.cat((joint, under), dim=-1)), dim=-2)
        size *= 2
    return inverse[..., 0, :, :]


def _blocks(matrix: Tensor, size: int, *, below: bool) -> Tensor:
    """The blocks on the diagonal [..., n, size, size]; or, below it, each second one [..., n / 2, size, size]."""
    width = 2 * size if below else size
    rows = matrix.unflatten(-1, (-1, width)).unflatten(-3, (-1, width))  # [..., n, width, n, width]
    diagonal = rows.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)
    return diagonal[..., size:, :size] if below else diagonal


def gated_delta_rule(q: Tensor, k: Tensor, v: Tensor, *, log_decay: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs [rows, heads, length, value_dim] in v's dtype, and the last state [rows, heads, key_dim, value_dim] fp32.

    q (scaled) and k (of norm 1) [rows, heads, length, key_dim]; v [rows, heads, length, value_dim]; log_decay (at most
    0) and beta [rows, heads, length] fp32. A token with k = 0 and log_decay = 0 changes nothing.
    """
    length = q.shape[2]
    missing = -length % CHUNK
    q, k, v = (functional.pad(x, (0, 0, 0, missing)).unflatten(2, (-1, CHUNK)) for x in (q, k, v))
    log_decay, beta = (functional.pad(x, (0, missing)).unflatten(2, (-1, CHUNK)) for x in (log_decay, beta))
    total = log_decay.cumsum(dim=-1)[..., None]  # [rows, heads, chunks, CHUNK, 1], of all tokens up to this one
    decay = (total - total.mT).tril().exp().tril()  # from token j to token i; masked before the exponent too
    beta = beta[..., None]
    wide = k.float()
    inverse = unit_lower_inverse((beta * (wide @ wide.mT) * decay).tril(-1))
    fresh = inverse @ (beta * v.float())
    erased = inverse @ (beta * total.exp() * wide)
    last = total[..., -1:, :]
    kept = wide * (last - total).exp()
    carry = torch.eye(k.shape[-1], device=k.device) * last.exp() - kept.mT @ erased
    states = scan(carry, kept.mT @ fresh)
    before = states[:, :, :-1]
    written = (fresh - erased @ before).to(v.dtype)
    seen = (q.float() * total.exp()).to(v.dtype) @ before.to(v.dtype)
    outputs = seen + ((q @ k.mT) * decay).to(v.dtype) @ written
    return outputs.flatten(2, 3)[:, :, :length], states[:, :, -1]
