"""Reading matrices through TMA (the Tensor Memory Accelerator): descriptors, alignment, and names that Triton changed.

Shared by linear, the experts and attention. Knows nothing of what the tiles are for.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.language.core import extern

load_tile = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared  # Triton 3.7 renamed it


@extern
def reinterpret(memory, dtype, shape, layout, _semantic=None):
    """View shared memory with another dtype, shape and layout. In Triton 3.6 this is a private method."""
    method = memory.reinterpret if hasattr(memory, "reinterpret") else memory._reinterpret
    return method(dtype, shape, layout, _semantic=_semantic)


def is_aligned(matrix: Tensor) -> bool:
    """True where TMA can read the matrix: contiguous columns, rows that start at multiples of 16 bytes."""
    pitch = matrix.stride(0) * matrix.element_size()
    return matrix.stride(1) == 1 and pitch % 16 == 0 and matrix.data_ptr() % 16 == 0 and pitch > 0


def descriptor(matrix: Tensor, rows: int, columns: int, *, num_rows: int | None = None) -> TensorDescriptor:
    """Descriptor of a 16-bit matrix that is read in boxes of `rows` × `columns`. num_rows: None for all its rows."""
    shape = [matrix.shape[0] if num_rows is None else num_rows, matrix.shape[1]]
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    return TensorDescriptor(matrix, shape, list(matrix.stride()), [rows, columns], layout)
