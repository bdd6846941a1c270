"""Kernels for the index arithmetic of a step: the inputs of the target and of a drafter, and how a row advances.

Integers only, so every result is exact on any device.

Legend: R rows of the step, T tokens of the step, K drafts at most, N rows of the request table.
"""

from typing import NamedTuple, Protocol

from torch import Tensor


class Assembled(NamedTuple):
    """Inputs of the target's forward pass; padding tokens have id 0, position 0 and a slot in the null block."""

    token_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64
    slots: Tensor  # [T] int64
    kv_lengths: Tensor  # [T] int64, 0 for padding
    num_drafts: Tensor  # [R] int64, real drafts of this step
    num_tokens_left: Tensor  # [R] int64, tokens the request may still emit


class ChainTokens(NamedTuple):
    """Inputs of one pass of a drafter that keeps the KV of token j at index j."""

    token_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64, index - first_index
    slots: Tensor  # [T] int64
    kv_lengths: Tensor  # [T] int64, 0 for padding


class TableMemory(NamedTuple):
    """The memory of the request table that an admission fills; a parameter is one line of `wide` or `narrow`.

    L words of lists in a row, an even number.
    """

    lengths: Tensor  # [lengths, at least N] int64
    token_ids: Tensor  # [N, width] int32
    block_tables: Tensor  # [N, columns] int32, the tables of all groups of layers side by side
    wide: Tensor  # [parameters, at least N] int64
    narrow: Tensor  # [parameters, at least N] int32, floats as their bits
    lists: Tensor  # [N, L] int32, parameters with many values, as words
    neutral_lists: Tensor  # [L] int32, a row of `lists` for a request that uses none of them
    prompt_mask: Tensor  # [N, vocab_size] bool, tokens of the prompt
    output_counts: Tensor  # [N, vocab_size] int32, occurrences of tokens in the output


class AdmissionRecord(NamedTuple):
    """All rows that start or resume in a step, and all new blocks, in one piece of memory."""

    data: Tensor  # [sum of sizes] int64
    sizes: tuple[int, ...]
    """Sizes of `AdmissionParts`, in their order."""

    @property
    def parts(self) -> "AdmissionParts":
        return AdmissionParts(*self.data.split(self.sizes))


class AdmissionParts(NamedTuple):
    """The parts of an `AdmissionRecord`, all int64: A rows that start, B new blocks, T tokens, S rows with lists."""

    rows: Tensor  # [A], of the table
    num_prompt_tokens: Tensor  # [A], the tokens after them are output
    list_index: Tensor  # [A], place in `lists`; -1: the row's lists are neutral
    token_starts: Tensor  # [A + 1], first token of each row in `token_ids`, then T
    block_starts: Tensor  # [A + 1], first new block of each row, then the first one of rows that do not start
    lengths: Tensor  # [A × lengths]
    parameters: Tensor  # [A × (wide + narrow / 2)], for each row its wide ones, then two narrow ones in each number
    block_places: Tensor  # [B], in `block_tables` as one line; no place twice
    block_ids: Tensor  # [B]
    token_ids: Tensor  # [T]
    lists: Tensor  # [S × L / 2], two words in each number


class StepKernels(Protocol):
    """Kernels that read and advance the request table."""

    def admit(self, memory: TableMemory, record: AdmissionRecord) -> None:
        """Fill the rows that start or resume, so that nothing of their last requests is left, and add new blocks.

        A row that starts gets its lengths, tokens, parameters and lists; its block tables are the null block where the
        record has none. `prompt_mask` and `output_counts` are made from its tokens. Of other rows only the places of
        new blocks change.
        """

    def assemble(
        self,
        token_ids: Tensor,
        num_tokens: Tensor,
        num_computed: Tensor,
        max_total: Tensor,
        drafts: Tensor,
        num_drafts: Tensor,
        block_tables: Tensor,
        *,
        rows: Tensor,
        num_known: Tensor,
        draft_bound: Tensor,
        token_row: Tensor,
        token_offset: Tensor,
        block_size: int,
    ) -> Assembled:
        """Tokens of the step: known ones from the table, then drafts, as many as are real and allowed.

        Tables: token_ids [N, width] int32, num_tokens, num_computed, max_total, num_drafts [N] int64, drafts [N, K]
        int64, block_tables [N, max_blocks] int32. Of the step: rows, num_known (chunk length, or 1) and draft_bound
        (most drafts that the plan allows) [R] int64, token_row and token_offset (place in its row) [T] int64.
        """

    def commit(
        self,
        token_ids: Tensor,
        num_tokens: Tensor,
        num_computed: Tensor,
        *,
        rows: Tensor,
        num_known: Tensor,
        num_tokens_left: Tensor,
        emitted: Tensor,
        num_emitted: Tensor,
        num_accepted: Tensor,
    ) -> None:
        """Append emitted tokens [R, K + 1] int64 to the request table and advance its lengths."""

    def put_drafts(
        self,
        drafts: Tensor,
        num_drafts: Tensor,
        *,
        rows: Tensor,
        proposed: Tensor,
        has_sampled: Tensor,
        num_tokens: Tensor,
        vocab_size: int,
        position_limit: int,
    ) -> None:
        """Store proposed [R, at most K] int64 up to the first that is not a token id or reaches `position_limit`.

        has_sampled [R] bool: False for a prompt chunk that is not the last, which gets no drafts.
        """

    def chain_known(
        self,
        token_ids: Tensor,
        num_tokens: Tensor,
        block_tables: Tensor,
        *,
        rows: Tensor,
        token_row: Tensor,
        positions: Tensor,
        kv_lengths: Tensor,
        first_index: int,
        block_size: int,
    ) -> ChainTokens:
        """The token after each of the target's, where it is known; padding elsewhere.

        positions [T] int64: those of the target's tokens; first_index: KV index of the drafter's position 0.
        """

    def chain_drafted(
        self,
        num_tokens: Tensor,
        max_total: Tensor,
        block_tables: Tensor,
        *,
        rows: Tensor,
        drafts: Tensor,
        num_emitted: Tensor,
        step: int,
        vocab_size: int,
        first_index: int,
        block_size: int,
    ) -> ChainTokens:
        """The drafts [R] int64 `step` positions after the last known token; padding where the request ends before."""
