"""Index arithmetic of a step in plain PyTorch: which token goes where, and how a row advances.

Integers only, so every result is exact on any device. Nothing here waits for the device: the host reads no
value, and no shape depends on data.

Legend: R rows of the step, T tokens of the step, K drafts at most, N rows of the table.
"""

import torch
from torch import Tensor

from outrider.kernels.interface.step import Assembled


def slot_of(block_tables: Tensor, index: Tensor, is_valid: Tensor, *, block_size: int) -> Tensor:
    """KV slot of each index through its own row of `block_tables` [T, max_blocks]; the null slot 0 if not valid."""
    column = (index // block_size).clamp(0, block_tables.shape[1] - 1)
    block = block_tables.gather(1, column.unsqueeze(1)).squeeze(1).long()
    return torch.where(is_valid, block * block_size + index % block_size, 0)


def assemble(
    token_ids: Tensor,  # [N, width] int32
    num_tokens: Tensor,  # [N] int64
    num_computed: Tensor,  # [N] int64
    max_total: Tensor,  # [N] int64
    drafts: Tensor,  # [N, K] int64
    num_drafts: Tensor,  # [N] int64
    block_tables: Tensor,  # [N, max_blocks] int32
    *,
    rows: Tensor,  # [R] int64, table row of each row of the step
    num_known: Tensor,  # [R] int64, chunk length, or 1
    draft_bound: Tensor,  # [R] int64, most drafts the plan allows
    token_row: Tensor,  # [T] int64, row of the step of each token
    token_offset: Tensor,  # [T] int64, place of each token in its row
    block_size: int,
) -> Assembled:
    """Tokens of the step: known ones from the table, then drafts, as many as are real and still allowed."""
    num_tokens_left = (max_total - num_tokens)[rows].clamp(min=0)
    used = torch.minimum(torch.minimum(num_drafts[rows], draft_bound), num_tokens_left - 1).clamp(min=0)
    num_valid = torch.where(num_tokens_left > 0, num_known + used, 0)
    table_row = rows[token_row]
    is_valid = token_offset < num_valid[token_row]
    position = torch.where(is_valid, num_computed[table_row] + token_offset, 0)
    known = token_ids[table_row, position].long()
    ahead = position - num_tokens[table_row]
    guessed = drafts[table_row, ahead.clamp(0, drafts.shape[1] - 1)]
    ids = torch.where(is_valid, torch.where(ahead < 0, known, guessed), 0)
    slots = slot_of(block_tables[table_row], position, is_valid, block_size=block_size)
    return Assembled(ids, position, slots, torch.where(is_valid, position + 1, 0), used, num_tokens_left)


def commit(
    token_ids: Tensor,  # [N, width] int32, changed
    num_tokens: Tensor,  # [N] int64, changed
    num_computed: Tensor,  # [N] int64, changed
    *,
    rows: Tensor,  # [R] int64
    num_known: Tensor,  # [R] int64
    num_tokens_left: Tensor,  # [R] int64, before this step
    emitted: Tensor,  # [R, K + 1] int64
    num_emitted: Tensor,  # [R] int64
    num_accepted: Tensor,  # [R] int64
) -> None:
    """Append emitted tokens and advance the lengths. Tokens written past num_emitted are never read."""
    start = num_tokens[rows]
    column = start.unsqueeze(1) + torch.arange(emitted.shape[1], device=emitted.device)
    token_ids[rows.unsqueeze(1), column] = emitted.to(token_ids.dtype)
    num_tokens[rows] = start + num_emitted
    num_computed[rows] += torch.where(num_tokens_left > 0, num_known + num_accepted, 0)


def put_drafts(
    drafts: Tensor,  # [N, K] int64, changed
    num_drafts: Tensor,  # [N] int64, changed
    *,
    rows: Tensor,  # [R] int64
    proposed: Tensor,  # [R, at most K] int64, any values
    has_sampled: Tensor,  # [R] bool, False for a chunk that is not the last
    num_tokens: Tensor,  # [N] int64, after commit
    vocab_size: int,
    position_limit: int,
) -> None:
    """Store the drafts before the first that is not a token id or reaches `position_limit`."""
    is_token = (proposed >= 0) & (proposed < vocab_size)
    num_real = is_token.long().cumprod(dim=1).sum(dim=1)
    num_real = torch.minimum(num_real, (position_limit - num_tokens[rows]).clamp(min=0))
    columns = torch.arange(proposed.shape[1], device=rows.device)
    drafts[rows.unsqueeze(1), columns] = torch.where(is_token, proposed, 0)
    num_drafts[rows] = torch.where(has_sampled, num_real, 0)
