"""Inputs of a drafter's passes in plain PyTorch: the tokens after the target's, and the drafter's own drafts.

Integers only, so every result is exact on any device.

Legend: R rows of the step, T tokens of the step, N rows of the table.
"""

import torch
from torch import Tensor

from outrider.kernels.interface.step import ChainTokens
from outrider.kernels.reference.step_inputs import slot_of


def chain_known(
    token_ids: Tensor,  # [N, width] int32
    num_tokens: Tensor,  # [N] int64
    block_tables: Tensor,  # [N, max_blocks] int32
    *,
    rows: Tensor,  # [R] int64
    token_row: Tensor,  # [T] int64, row of the step of each token
    positions: Tensor,  # [T] int64, positions of the target's tokens whose features the drafter reads
    kv_lengths: Tensor,  # [T] int64, the target's: 0 for padding
    first_index: int,  # KV index of the drafter's position 0
    block_size: int,
) -> ChainTokens:
    """The token after each of the target's, where it is known; a rejected draft gives padding."""
    table_rows = rows[token_row]
    index = positions + 1
    is_valid = (kv_lengths > 0) & (index < num_tokens[table_rows])
    ids = token_ids[table_rows, index.clamp(max=token_ids.shape[1] - 1)].long()
    return _chain(ids, index, is_valid, block_tables[table_rows], first_index=first_index, block_size=block_size)


def chain_drafted(
    num_tokens: Tensor,  # [N] int64
    max_total: Tensor,  # [N] int64
    block_tables: Tensor,  # [N, max_blocks] int32
    *,
    rows: Tensor,  # [R] int64
    drafts: Tensor,  # [R] int64, any values
    num_emitted: Tensor,  # [R] int64, 0 for a chunk that is not the last
    step: int,
    vocab_size: int,
    first_index: int,
    block_size: int,
) -> ChainTokens:
    """The draft `step` positions after the last known token; padding where the request ends before it."""
    index = num_tokens[rows] - 1 + step
    is_valid = (index < max_total[rows]) & (num_emitted > 0)
    ids = torch.where((drafts >= 0) & (drafts < vocab_size), drafts, 0)
    return _chain(ids, index, is_valid, block_tables[rows], first_index=first_index, block_size=block_size)


def _chain(
    ids: Tensor, index: Tensor, is_valid: Tensor, block_tables: Tensor, *, first_index: int, block_size: int
) -> ChainTokens:
    return ChainTokens(
        token_ids=torch.where(is_valid, ids, 0),
        positions=torch.where(is_valid, index - first_index, 0),
        slots=slot_of(block_tables, index, is_valid, block_size=block_size),
        kv_lengths=torch.where(is_valid, index + 1, 0),
    )
