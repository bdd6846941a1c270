"""The gated delta rule (Gated DeltaNet, arXiv 2412.06464) of whole windows, in chunks, for training.

A state S [key_dim, value_dim] per head: S ← e^g S, then S ← S + k (β (v - Sᵀk))ᵀ, and the output is Sᵀq. Chunks are
made independent of each other up to one product: S_after = carry · S_before + added. Knows nothing of layers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 64  # tokens
_FIRST_BLOCK = 8  # of a triangular matrix: small enough that its powers lose nothing in fp32


def unit_lower_inverse(lower: Tensor) -> Tensor:
    """(I + lower)^-1 for strictly lower triangular matrices lower [..., CHUNK, CHUNK], fp32.

    Blocks on the diagonal by (I - L)(I + L²)(I + L⁴), then pairs of blocks are joined until one is left.
    """
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
    added = kept.mT @ fresh
    state = torch.zeros_like(added[:, :, 0])
    before = []
    for index in range(added.shape[2]):
        before.append(state)
        state = carry[:, :, index] @ state + added[:, :, index]
    states = torch.stack(before, dim=2)
    written = (fresh - erased @ states).to(v.dtype)
    seen = (q.float() * total.exp()).to(v.dtype) @ states.to(v.dtype)
    outputs = seen + ((q @ k.mT) * decay).to(v.dtype) @ written
    return outputs.flatten(2, 3)[:, :, :length], state
