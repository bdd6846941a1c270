"""The recurrent state of a hybrid's layers: its shape, its size, its memory. One row per request, by table row.

How a state moves is `kernels/reference/gated_delta.py`; who owns which row is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from outrider.kernels import Kernels
from outrider.kernels.interface.state import CHUNK, CONV_WIDTH


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSpec:
    """Shape of the states of one model."""

    num_layers: int
    num_key_heads: int
    num_value_heads: int
    key_size: int
    value_size: int
    dtype: torch.dtype
    """Of keys and convolution inputs; states, solved rows and decays are fp32."""
    num_drafts: int

    @property
    def num_channels(self) -> int:
        """Width of the convolution: q, k and v side by side."""
        return 2 * self.num_key_heads * self.key_size + self.num_value_heads * self.value_size

    @property
    def most_open(self) -> int:
        """Most tokens between a state and the first token of a step: an open chunk, and what two steps emitted."""
        return CHUNK + 2 * self.num_drafts

    @property
    def num_places(self) -> int:
        """Places of a ring: open tokens, the drafts of two steps, and the convolution's reach; a power of two."""
        return 1 << (CHUNK + CONV_WIDTH - 1 + 2 * self.num_drafts - 1).bit_length()

    def shapes(self, num_rows: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each tensor of one layer."""
        heads, places = self.num_value_heads, self.num_places
        return {
            "state": ((num_rows, heads, self.key_size, self.value_size), torch.float32),
            "keys": ((num_rows, places, self.num_key_heads, self.key_size), self.dtype),
            "deltas": ((num_rows, places, heads, self.value_size), torch.float32),
            "log_decays": ((num_rows, places, heads), torch.float32),
            "inputs": ((num_rows, places, self.num_channels), self.dtype),
        }

    @property
    def state_bytes(self) -> int:
        """Bytes of one request's states alone, in all layers: what a step has to read."""
        shape, dtype = self.shapes(1)["state"]
        return self.num_layers * torch.Size(shape).numel() * dtype.itemsize

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one request in all layers."""
        sizes = (torch.Size(shape).numel() * dtype.itemsize for shape, dtype in self.shapes(1).values())
        return self.num_layers * sum(sizes)

    @property
    def snapshot_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of one layer's snapshot: the state, and the convolution inputs before it."""
        return (self.num_value_heads, self.key_size, self.value_size), (CONV_WIDTH - 1, self.num_channels)

    @property
    def bytes_per_snapshot(self) -> int:
        """Bytes of one snapshot in all layers."""
        state, inputs = (torch.Size(shape).numel() for shape in self.snapshot_shapes)
        return self.num_layers * (4 * state + self.dtype.itemsize * inputs)


@dataclass(frozen=True, slots=True)
class LayerState:
    """States and rings of one layer. N rows of the table, the padding row last; W places of a ring."""

    state: Tensor  # [N, Vh, dk, dv] fp32
    keys: Tensor  # [N, W, Kh, dk]
    deltas: Tensor  # [N, W, Vh, dv] fp32
    log_decays: Tensor  # [N, W, Vh] fp32
    inputs: Tensor  # [N, W, channels]


class StateCache(Sequence[LayerState]):
    """The memory of all states, one `LayerState` per layer that has one, and of their snapshots."""

    def __init__(self, spec: StateSpec, num_rows: int, *, device: torch.device) -> None:
        self.spec = spec
        self._layers = [
            LayerState(
                **{
                    name: torch.zeros(shape, dtype=dtype, device=device)
                    for name, (shape, dtype) in spec.shapes(num_rows).items()
                }
            )
            for _ in range(spec.num_layers)
        ]
        self.allocate_snapshots(0)

    def allocate_snapshots(self, num_slots: int) -> None:
        """Memory for snapshots, one of all layers in a slot."""
        device = self._layers[0].state.device
        state, inputs = self.spec.snapshot_shapes
        self._snapshots = [
            (
                torch.zeros(num_slots, *state, dtype=torch.float32, device=device),
                torch.zeros(num_slots, *inputs, dtype=self.spec.dtype, device=device),
            )
            for _ in self._layers
        ]

    def save(self, kernels: Kernels, *, rows: Tensor, slots: Tensor, sources: Tensor, lengths: Tensor) -> None:
        """Take snapshots; all [G] int64, see `save_states`."""
        for layer, (state, inputs) in zip(self._layers, self._snapshots, strict=True):
            kernels.save_states(
                layer.state,
                layer.keys,
                layer.deltas,
                layer.log_decays,
                layer.inputs,
                state,
                inputs,
                rows=rows,
                slots=slots,
                sources=sources,
                lengths=lengths,
                most_open=self.spec.most_open,
            )

    def load(self, kernels: Kernels, *, rows: Tensor, slots: Tensor, lengths: Tensor) -> None:
        """Let rows start from snapshots; all [G] int64."""
        for layer, (state, inputs) in zip(self._layers, self._snapshots, strict=True):
            kernels.load_states(layer.state, layer.inputs, state, inputs, rows=rows, slots=slots, lengths=lengths)

    @overload
    def __getitem__(self, index: int) -> LayerState: ...
    @overload
    def __getitem__(self, index: slice) -> list[LayerState]: ...
    def __getitem__(self, index: int | slice) -> LayerState | list[LayerState]:
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)
