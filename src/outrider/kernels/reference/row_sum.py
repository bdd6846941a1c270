"""The sum of each row by a fixed tree: its bits depend on the row alone."""

from torch import Tensor
from torch.nn.functional import pad


def row_sum(values: Tensor) -> Tensor:
    """Sum of each row, [num_rows, 1], by halving: the row is padded with zeros to a power of two and folded.

    The additions and their order depend on the row's length only. `torch.sum` and `torch.logsumexp` over a long
    row are split by threads on a CPU.
    """
    width = 1 << (values.shape[1] - 1).bit_length()
    values = pad(values, (0, width - values.shape[1]))
    while width > 1:
        width //= 2
        values = values[:, :width] + values[:, width:]
    return values
