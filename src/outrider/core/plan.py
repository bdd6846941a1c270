"""The plan of one step, which the host sends, and the result, which it reads back: plain data, no tensors.

A row takes `num_tokens` tokens in a step: a prompt chunk, or 1 + num_drafts. For prompt chunks the count is
exact. For decode rows it is an upper bound: only the device knows how many drafts are real.

Rows are created for every request and step. They are not frozen, because freezing would cost twice as much as
creating them, but no code writes to one.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from outrider.core.sampling_params import SamplingParams

STATE_CHUNK = 16
"""Number of tokens by which the recurrent state of a hybrid model advances at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowAdmission:
    """Assigns a row of the device table to a request, at its start or again after preemption."""

    row: int
    request_id: str
    token_ids: tuple[int, ...]
    """Every known token: the prompt, and after preemption the confirmed output."""
    num_prompt_tokens: int
    num_computed_tokens: int
    """Number of tokens covered by prefix-cache blocks."""
    last_cached_block: int
    """The last of those blocks, or -1: its boundary feature belongs to the first token to compute."""
    max_total_tokens: int
    params: SamplingParams
    seed: int
    stop_token_ids: tuple[int, ...]
    """eos and stop ids: forbidden before min_tokens."""
    snapshot_id: int = -1
    """For a hybrid model: the snapshot of its state after num_computed_tokens tokens, or -1."""
    completion_index: int = 0
    """Index of the completion among the n of its prompt: a part of the noise's key."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Token sequences that the output may not contain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBlocks:
    """Blocks appended to a row's block table of one group."""

    row: int
    first_index: int
    block_ids: tuple[int, ...]
    """In a group with a window, 0 (the null block) replaces leading blocks that no token of the row will read."""
    group: int = 0
    """Index of the group of layers (`core/kv_groups.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSave:
    """For a hybrid model: save a snapshot of a row's state after its first `length` tokens."""

    row: int
    snapshot_id: int
    length: int
    """A multiple of the block size. The row's state is at this length, or before it with the tokens between stored."""


@dataclass(slots=True, kw_only=True)
class PooledRow:
    """The part of a row's chunk that a pooling request gets numbers for."""

    offsets: Sequence[int]
    """Offsets in the chunk of the tokens with a result: for a task by token those that it asks for; else the last token
    of the text, or none in a chunk before it."""
    is_by_token: bool
    start: int
    """Position of the chunk's first token in the text."""
    num_skipped: int = 0
    """Leading tokens of the text that its vector leaves out."""
    size: int
    """Numbers of a vector that are kept; 0: all."""
    activates: bool
    """The last function (normalisation, sigmoid, softmax) is applied."""
    token_types: Sequence[int] = ()
    """Part of a pair, 0 or 1, of each token of the chunk; empty where all are 0."""


@dataclass(slots=True, kw_only=True)
class RowPlan:
    """One request's share of a step."""

    request_id: str
    epoch: int
    row: int
    num_tokens: int
    """Chunk length, or 1 + num_drafts."""
    num_drafts: int
    """Upper bound on the number of drafts among num_tokens; 0 in a prompt chunk."""
    does_sample: bool
    """False for a prompt chunk that is not the last."""
    length_bound: int
    """All tokens of this row are before this position in this step."""
    params: SamplingParams
    first_scored: int = 0
    """Offset in the chunk of the first token whose successor in the prompt is scored (prompt_logprobs)."""
    num_scored: int = 0
    has_grammar: bool = False
    """The row has samples, and the request's grammar says which tokens they may be. Their masks are made once every
    earlier step is settled, while the forward pass of this one runs."""
    pooled: PooledRow | None = None
    """None: the request generates."""

    @property
    def num_samples(self) -> int:
        """Number of rows of logits that this request needs."""
        return 1 + self.num_drafts if self.does_sample else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """One step. The device saves states, writes admissions and new blocks to the table, and then runs the rows."""

    step_id: int
    admissions: tuple[RowAdmission, ...]
    new_blocks: tuple[NewBlocks, ...]
    rows: tuple[RowPlan, ...]
    num_proposals: int
    """Number of drafts that the drafter makes in this step for each row's next step."""
    state_saves: tuple[StateSave, ...] = ()
    """Executed in this order; if a snapshot id occurs twice, the last save counts."""

    @property
    def num_tokens(self) -> int:
        return sum(row.num_tokens for row in self.rows)

    @property
    def has_grammars(self) -> bool:
        """True if samples of this step need masks."""
        return any(row.has_grammar for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprobs:
    """Log-probabilities at one emitted token, as read back."""

    logprob: float
    rank: int
    top_ids: tuple[int, ...]
    top_logprobs: tuple[float, ...]
    given_logprobs: tuple[float, ...] = ()
    """Log-probabilities of `logprob_token_ids`, in their order."""
    given_ranks: tuple[int, ...] = ()


@dataclass(slots=True, kw_only=True)
class RowResult:
    """Result of a step for one request."""

    request_id: str
    epoch: int
    token_ids: tuple[int, ...]
    """Emitted tokens: accepted drafts, then the target's own token. Empty for a chunk that is not the last."""
    num_drafts: int
    """Number of real drafts that were verified."""
    num_accepted: int
    logits_hashes: tuple[int, ...] = ()
    """Per emitted token, with `logits_digest`."""
    logprobs: tuple[TokenLogprobs, ...] = ()
    """Per emitted token, where the request asked for them."""
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    """Per scored token of the prompt, where the request asked for them."""
    drafts: tuple[int, ...] = ()
    """Drafts for the next step; only for a row with a grammar."""
    pooled: "array[float] | None" = None
    """fp32 numbers of a pooling request, one result after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """Result of a step, which the host reads one step late; rows in the order of the plan."""

    step_id: int
    rows: tuple[RowResult, ...]
