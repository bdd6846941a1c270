"""The linear layers of the plain stack: a row has the same bits at every place among others, whatever the sizes are.

Whether a library's products of 16 rows are so depends on the processor, so all small numbers of columns are tried.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from outrider.kernels.reference.linear import empty_weight, linear
from outrider.kernels.reference.text_linear import text_linear

NUM_ROWS = 35
SIZES = (*range(1, 34), 63, 65, 96, 100)
WIDTHS = (1, 4, 7, 16, 33, 64, 255)


def by_columns(size: int, width: int) -> Tensor:
    """The form in which layers keep their weights."""
    return empty_weight(size, width, dtype=torch.float32, device=torch.device("cpu")).copy_(torch.randn(size, width))


def cut_from_another(size: int, width: int) -> Tensor:
    """Rows of a wider layer, the last ones: no columns follow in memory."""
    whole = torch.empty(width, size + 20).t()
    return whole.copy_(torch.randn(size + 20, width))[20:]


def by_rows(size: int, width: int) -> Tensor:
    return torch.randn(size, width)


@pytest.mark.parametrize("weight_of", [by_columns, cut_from_another, by_rows])
@pytest.mark.parametrize("function", [linear, text_linear])
def test_a_row_has_the_same_bits_at_every_place(
    function: Callable[..., Tensor], weight_of: Callable[[int, int], Tensor]
) -> None:
    torch.manual_seed(0)
    wrong = []
    for size in SIZES:
        for width in WIDTHS:
            weight, bias, x = weight_of(size, width), torch.randn(size), torch.randn(NUM_ROWS, width)
            whole = function(x, weight, bias)
            assert whole.is_contiguous()
            exact = (x.double() @ weight.double().t() + bias.double()).float()
            torch.testing.assert_close(whole, exact, rtol=1e-5, atol=1e-4)
            moved = [function(x.roll(shift, 0), weight, bias).roll(-shift, 0) for shift in (1, 5, 15)]
            alone = torch.cat([function(x[row : row + 1].clone(), weight, bias) for row in range(NUM_ROWS)])
            if not all(torch.equal(other, whole) for other in (*moved, alone)):
                wrong.append((size, width))
    assert wrong == [], "numbers of columns and widths at which another place has other bits"
