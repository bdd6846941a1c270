"""Rows of the embedding table, on a GPU."""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.triton.intrinsics import launch_dependents, wait
from outrider.kernels.triton.launch import OVERLAPPED

_BLOCK = 1024


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """ids [M] int64 in [0, V), weight [V, K] -> [M, K]."""
    assert weight.stride(1) == 1, "rows of the table are contiguous"
    num_tokens, width = ids.shape[0], weight.shape[1]
    out = torch.empty(num_tokens, width, dtype=weight.dtype, device=weight.device)
    if num_tokens > 0:
        grid = (num_tokens, triton.cdiv(width, _BLOCK))
        _embedding_kernel[grid](ids, weight, out, width, weight.stride(0), BLOCK=_BLOCK, num_warps=4, **OVERLAPPED)
    return out


@triton.jit
def _embedding_kernel(p_ids, p_weight, p_out, width, stride, BLOCK: tl.constexpr):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    o_column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    wait()
    i_id = tl.load(p_ids + i_row).to(tl.int64)
    b_row = tl.load(p_weight + i_id * stride + o_column, mask=o_column < width)
    tl.store(p_out + i_row * width + o_column, b_row, mask=o_column < width)
