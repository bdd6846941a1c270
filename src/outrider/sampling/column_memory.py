"""Memory of the sampling table's columns, and packing the values of a row for the one copy of an admission.

Numbers of 8 and of 4 bytes have a tensor each, with a line for each column, so a column is contiguous. Columns with
many values are side by side in a third tensor, so a row's lists are contiguous. Only dtypes of 4 or 8 bytes are used.
Knows nothing of operations.
"""

from collections.abc import Mapping, Sequence
from struct import Struct

import numpy as np
import torch
from torch import Tensor

from outrider.sampling.operation import Column, Value

_CODES = {torch.int64: "q", torch.float64: "d", torch.int32: "i", torch.float32: "f"}
"""The code of each dtype in `struct`; numpy knows the same codes."""

_LINE = 16
"""A line of numbers begins at a multiple of this number, a list at a multiple of this number of words, so that kernels
can read several at once."""


class ColumnMemory:
    """The columns of `num_rows` rows; allocated once, with neutral values."""

    def __init__(self, columns: Sequence[Column], num_rows: int, device: torch.device) -> None:
        for column in columns:
            assert column.dtype in _CODES, f"column {column.name!r} has dtype {column.dtype}; it takes {list(_CODES)}"
        scalars = [column for column in columns if not column.shape]
        wide = [column for column in scalars if column.dtype.itemsize == 8]
        narrow = [column for column in scalars if column.dtype.itemsize == 4]
        lists = [column for column in columns if column.shape]
        if len(narrow) % 2:  # two of them take the place of a wide one
            narrow.append(Column(name="", dtype=torch.int32, neutral=0))
        self._scalars = [(column.name, column.neutral) for column in (*wide, *narrow)]
        self._struct = Struct("".join(_CODES[column.dtype] for column in (*wide, *narrow)))
        self._places: dict[str, slice] = {}  # words of each list in a row
        num_words = 0
        for column in lists:
            size = int(np.prod(column.shape)) * column.dtype.itemsize // 4
            self._places[column.name] = slice(num_words, num_words + size)
            num_words += -(-size // _LINE) * _LINE
        self._lists = {column.name: column for column in lists}

        def empty(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        num_places = -(-num_rows // _LINE) * _LINE
        self.wide = empty(len(wide), num_places, dtype=torch.int64)
        self.narrow = empty(len(narrow), num_places, dtype=torch.int32)
        self.lists = empty(num_rows, num_words, dtype=torch.int32)
        self._neutral_lists = np.zeros(num_words, dtype=np.int32)
        self.columns: dict[str, Tensor] = {}
        """By name: [num_rows, *shape of the column]."""
        for memory, group in ((self.wide, wide), (self.narrow, narrow)):
            for line, column in zip(memory, group, strict=True):
                self.columns[column.name] = line[:num_rows].view(column.dtype).fill_(column.neutral)
        self.columns.pop("", None)
        for column in lists:
            words = self.lists[:, self._places[column.name]].view(column.dtype)
            self.columns[column.name] = words.unflatten(1, column.shape).fill_(column.neutral)
            self._on_host(self._neutral_lists, column).fill(column.neutral)
        self.neutral_lists = torch.from_numpy(self._neutral_lists.copy()).to(device)
        """[words of a row's lists] int32: the lists of a request that uses none."""

    def _on_host(self, words: np.ndarray, column: Column) -> np.ndarray:
        """The values of a column in one row's lists `words`, of which it is a view."""
        return words[self._places[column.name]].view(_CODES[column.dtype]).reshape(column.shape)

    def pack(self, values: Mapping[str, Value]) -> bytes:
        """The numbers of a row as its part of a record: wide ones, then narrow ones; missing ones are neutral."""
        return self._struct.pack(*[values.get(name, neutral) for name, neutral in self._scalars])

    def pack_lists(self, values: Mapping[str, Value]) -> np.ndarray | None:
        """[words of a row's lists] int32; None if all of them are neutral, as for most requests."""
        words = None
        for name, column in self._lists.items():
            value = values.get(name, ())
            if isinstance(value, (int, float)):
                if value != column.neutral:
                    words = self._neutral_lists.copy() if words is None else words
                    self._on_host(words, column).fill(value)
            elif len(value):
                words = self._neutral_lists.copy() if words is None else words
                own = self._on_host(words, column)
                assert len(value) <= len(own), f"{len(value)} values for {len(own)} places of {name!r}"
                own[: len(value)] = value
        return words
