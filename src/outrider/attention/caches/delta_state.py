"""The recurrent state of a Gated DeltaNet layer: shape, bytes and memory; one row per row of the request table.

`kernels/reference/gated_delta.py` defines how a state advances. The scheduler decides which request owns which row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from outrider.attention.caches.zeroed import zeroed
from outrider.kernels import Kernels
from outrider.kernels.interface.state import CHUNK, CONV_WIDTH


@dataclass(frozen=True, slots=True)
class LayerState:
    """States and ring buffers of one layer. N rows of the table, the padding row last; W entries per ring."""

    state: Tensor  # [N, Vh, dk, dv] fp32
    keys: Tensor  # [N, W, Kh, dk]
    deltas: Tensor  # [N, W, Vh, dv] fp32
    log_decays: Tensor  # [N, W, Vh] fp32
    inputs: Tensor  # [N, W, channels]


@dataclass(frozen=True, slots=True)
class LayerSnapshots:
    """Copies of one layer's states, S of them, each at the end of some prefix."""

    state: Tensor  # [S, Vh, dk, dv] fp32
    inputs: Tensor  # [S, CONV_WIDTH - 1, channels], the convolution inputs before the state's end


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaState:
    """Shape of one layer's state. `num_drafts` in the methods: the largest number of drafts per step."""

    num_key_heads: int
    num_value_heads: int
    key_size: int
    value_size: int
    dtype: torch.dtype
    """dtype of keys and convolution inputs; states, solved rows and decays are fp32."""

    @property
    def num_channels(self) -> int:
        """Width of the convolution: q, k and v side by side."""
        return 2 * self.num_key_heads * self.key_size + self.num_value_heads * self.value_size

    @property
    def state_bytes(self) -> int:
        """Bytes of one row's state without its rings: the part that a step always reads."""
        return 4 * self.num_value_heads * self.key_size * self.value_size

    def bytes_per_row(self, num_drafts: int) -> int:
        """Bytes of one row, rings included."""
        shapes = self._shapes(1, num_drafts).values()
        return sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in shapes)

    @property
    def bytes_per_snapshot(self) -> int:
        """Bytes of one snapshot."""
        return self.state_bytes + (CONV_WIDTH - 1) * self.num_channels * self.dtype.itemsize

    def allocate(self, num_rows: int, *, num_drafts: int, device: torch.device) -> LayerState:
        """Memory for `num_rows` rows, the padding row included."""
        return LayerState(
            **{
                name: zeroed(shape, dtype=dtype, device=device)
                for name, (shape, dtype) in self._shapes(num_rows, num_drafts).items()
            }
        )

    def allocate_snapshots(self, num_snapshots: int, *, device: torch.device) -> LayerSnapshots:
        """Memory for `num_snapshots` snapshots."""
        heads, channels = (self.num_value_heads, self.key_size, self.value_size), (CONV_WIDTH - 1, self.num_channels)
        return LayerSnapshots(
            zeroed((num_snapshots, *heads), dtype=torch.float32, device=device),
            zeroed((num_snapshots, *channels), dtype=self.dtype, device=device),
        )

    def _shapes(self, num_rows: int, num_drafts: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        heads, places = self.num_value_heads, num_places(num_drafts)
        return {
            "state": ((num_rows, heads, self.key_size, self.value_size), torch.float32),
            "keys": ((num_rows, places, self.num_key_heads, self.key_size), self.dtype),
            "deltas": ((num_rows, places, heads, self.value_size), torch.float32),
            "log_decays": ((num_rows, places, heads), torch.float32),
            "inputs": ((num_rows, places, self.num_channels), self.dtype),
        }


def most_open(num_drafts: int) -> int:
    """Maximum number of tokens from a state to the first token of a step: an open chunk, and two steps' output."""
    return CHUNK + 2 * num_drafts


def num_places(num_drafts: int) -> int:
    """Entries of a ring: open tokens, the drafts of two steps, and the convolution's reach; a power of two."""
    return 1 << (CHUNK + CONV_WIDTH - 1 + 2 * num_drafts - 1).bit_length()


class StateCache(Sequence[LayerState]):
    """The states of all layers that have one, and their snapshots: snapshot i is that of every layer."""

    def __init__(self, specs: Sequence[DeltaState], num_rows: int, *, num_drafts: int, device: torch.device) -> None:
        self.specs = tuple(specs)
        self.most_open = most_open(num_drafts)
        self.bytes_per_row = sum(spec.bytes_per_row(num_drafts) for spec in specs)
        self.bytes_per_snapshot = sum(spec.bytes_per_snapshot for spec in specs)
        self._device = device
        self._layers = [spec.allocate(num_rows, num_drafts=num_drafts, device=device) for spec in specs]
        self.allocate_snapshots(0)

    def allocate_snapshots(self, num_snapshots: int) -> None:
        """Allocate memory for this many snapshots; it replaces the previous memory."""
        self._snapshots = [spec.allocate_snapshots(num_snapshots, device=self._device) for spec in self.specs]

    def save(self, kernels: Kernels, *, rows: Tensor, slots: Tensor, sources: Tensor, lengths: Tensor) -> None:
        """Take snapshots; all [G] int64, see `save_states`."""
        for layer, saved in zip(self._layers, self._snapshots, strict=True):
            kernels.save_states(
                layer.state,
                layer.keys,
                layer.deltas,
                layer.log_decays,
                layer.inputs,
                saved.state,
                saved.inputs,
                rows=rows,
                slots=slots,
                sources=sources,
                lengths=lengths,
                most_open=self.most_open,
            )

    def load(self, kernels: Kernels, *, rows: Tensor, slots: Tensor, lengths: Tensor) -> None:
        """Restore rows from snapshots; all [G] int64."""
        for layer, saved in zip(self._layers, self._snapshots, strict=True):
            kernels.load_states(
                layer.state, layer.inputs, saved.state, saved.inputs, rows=rows, slots=slots, lengths=lengths
            )

    @overload
    def __getitem__(self, index: int) -> LayerState: ...
    @overload
    def __getitem__(self, index: slice) -> list[LayerState]: ...
    def __getitem__(self, index: int | slice) -> LayerState | list[LayerState]:
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)
