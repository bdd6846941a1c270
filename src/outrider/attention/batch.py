"""The flat batch of one forward pass: the part of a step that model layers and attention backends see.

All rows are concatenated. Values that only the device knows are tensors; those that the host knows exactly
(how many tokens each row was given) are tuples, except in a captured step of any counts. Padding tokens have id 0,
position 0, a slot in the null block and `kv_length` 0: they read nothing, write where no token reads, and their outputs
are never used.

    token_ids: | row 0: chunk of 5 | row 1: 1 + k | row 2: 1 + k | ...
    row_starts: 0                   5              5+(1+k)
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from outrider.kernels.interface.cache import DeviceCounts
from outrider.kernels.interface.state import StateRows


@dataclass(frozen=True, slots=True)
class GroupBatch:
    """Locations of the batch's tokens in the blocks of one group of layers."""

    block_tables: Tensor  # [num_rows, max_blocks] int32, null block 0 where unset
    slots: Tensor  # [num_tokens] int64, block_id * block_size + offset: where this token's K and V are written


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardBatch:
    """Inputs of one forward pass over `num_tokens` tokens of `num_rows` requests."""

    token_ids: Tensor  # [num_tokens] int64, always in [0, vocab_size)
    positions: Tensor  # [num_tokens] int64, rotary position
    kv_lengths: Tensor  # [num_tokens] int64, this token sees KV indices [kv_start, kv_length); 0 for padding
    groups: Mapping[int, GroupBatch]  # by group index, for every group of the layers that run
    row_counts: tuple[int, ...] | DeviceCounts  # tokens of each row, padding included
    kv_length_bound: int  # the host's upper bound on kv_lengths
    states: StateRows | None = None  # start and end of each row's recurrent states; None: the model has no states
    token_types: Tensor | None = None  # [num_tokens] int64, 0 or 1: part of a pair that an encoder reads; None: all 0
    kv_start: int = 0  # first KV index of a row that is used; 1 if a drafter's index 0 stays empty

    @property
    def num_tokens(self) -> int:
        return self.token_ids.shape[0]

    @property
    def num_rows(self) -> int:
        return next(iter(self.groups.values())).block_tables.shape[0]
