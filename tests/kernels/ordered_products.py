"""Products of Triton's interpreter as chains over K in ascending order, as tensor cores compute them.

The interpreter calls numpy's matmul, whose order of summation depends on the shape of a tile. So a row's bits would
depend on the tile that it is in, whatever the kernel does.
"""

from typing import Any

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter


def use_ordered_products() -> None:
    """Replaces the interpreter's product for this process."""
    interpreter.InterpreterBuilder.create_dot = _ordered


def _ordered(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
    """a [M, K] × b [K, N] + d [M, N], in fp32."""
    total = d.data.astype(np.float32)
    a_wide, b_wide = _wide(a), _wide(b)
    for k in range(a_wide.shape[-1]):
        total = total + a_wide[..., :, k, None] * b_wide[..., None, k, :]
    return interpreter.TensorHandle(total, d.dtype.scalar)


def _wide(x: Any) -> NDArray[np.float32]:
    if x.dtype.scalar == tl.bfloat16:  # kept as integers
        return (x.data.astype(np.uint32) << 16).view(np.float32)
    return x.data.astype(np.float32)
