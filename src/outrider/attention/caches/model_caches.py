"""The caches of all layers of one model, in the order of its layers, and the backend that attends over them."""

from collections.abc import Sequence
from typing import overload

import torch

from outrider.attention.base import AttentionBackend, StepAttention
from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.delta_state import DeltaState, LayerState
from outrider.attention.caches.paged import PagedMemory, PagedSpec
from outrider.core.kv_groups import BlockGroup

CacheSpec = PagedSpec | DeltaState
"""Spec of a layer's cache."""

LayerCache = PagedMemory | LayerState
"""Memory of a layer's cache."""


class ModelCaches(Sequence[LayerCache]):
    """One cache per layer. `allocate` creates paged memory; states are allocated before."""

    def __init__(
        self,
        specs: Sequence[CacheSpec],
        *,
        backend: AttentionBackend,
        groups: Sequence[BlockGroup],
        device: torch.device,
        states: Sequence[LayerState] = (),
    ) -> None:
        """`groups`: all of the engine's; `states`: one for each layer whose spec is a `DeltaState`."""
        self.specs = tuple(specs)
        self.backend = backend
        self.groups = tuple(groups)
        self._index_of = {group.window: index for index, group in enumerate(groups)}
        self._device = device
        self._states = states
        self._layers: list[LayerCache] = []

    @property
    def paged(self) -> list[PagedSpec]:
        """Specs of the layers whose cache is paged."""
        return [spec for spec in self.specs if isinstance(spec, PagedSpec)]

    @property
    def group_indices(self) -> list[int]:
        """Groups that these layers use, ascending."""
        return sorted({self._index_of[spec.window] for spec in self.paged})

    def bytes_per_block(self, group: int) -> int:
        """Bytes of one block in all of these layers that are in the group."""
        window, block_size = self.groups[group].window, self.groups[group].block_size
        return sum(spec.bytes_per_block(block_size) for spec in self.paged if spec.window == window)

    def allocate(self, num_blocks: Sequence[int]) -> None:
        """Allocate this many blocks in each group; they replace the previous memory."""
        self._layers.clear()  # first, so that old and new need not fit together
        states = iter(self._states)
        for spec in self.specs:
            if isinstance(spec, DeltaState):
                self._layers.append(next(states))
                continue
            group = self._index_of[spec.window]
            block_size = self.groups[group].block_size
            memory = spec.allocate(num_blocks[group], block_size=block_size, group=group, device=self._device)
            self._layers.append(memory)

    def begin(self, batch: ForwardBatch) -> StepAttention:
        """Attention of one forward pass, for all layers."""
        return StepAttention(self.backend, batch, self.backend.begin(batch))

    @overload
    def __getitem__(self, index: int) -> LayerCache: ...
    @overload
    def __getitem__(self, index: slice) -> list[LayerCache]: ...
    def __getitem__(self, index: int | slice) -> LayerCache | list[LayerCache]:
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)
