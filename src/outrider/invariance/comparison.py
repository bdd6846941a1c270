"""Equality of results, bit by bit."""

from collections.abc import Sequence

import torch
from torch import Tensor

_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def difference(ours: Sequence[Tensor], wanted: Sequence[Tensor]) -> str | None:
    """Says which rows differ; None if all bits are equal. Row i of each tensor is the result of row i. Two NaN are
    equal only with the same bits. Waits for the device."""
    for part, (mine, other) in enumerate(zip(ours, wanted, strict=True)):
        if mine.shape != other.shape or mine.dtype != other.dtype:
            return f"a result {list(mine.shape)} {mine.dtype} is not {list(other.shape)} {other.dtype}"
        if mine.numel() == 0:
            continue
        is_other = (_words(mine) != _words(other)).reshape(mine.shape[0], -1)
        rows = is_other.any(dim=1)
        if not bool(rows.any()):
            continue
        row = int(rows.int().argmax())
        place = int(is_other[row].int().argmax())
        values = [x.reshape(x.shape[0], -1)[row, place].item() for x in (mine, other)]
        where = f" of result {part}" if len(ours) > 1 else ""
        return f"{int(rows.sum())} of {len(rows)} rows{where} differ; in row {row}, {values[0]!r} is not {values[1]!r}"
    return None


def _words(x: Tensor) -> Tensor:
    x = x.contiguous()
    return x.view(_WORDS[x.element_size()]) if x.is_floating_point() else x
