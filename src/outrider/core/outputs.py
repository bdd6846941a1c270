"""Results returned to a caller: plain data, no tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class FinishReason(StrEnum):
    """The reason why an output ended."""

    STOP = "stop"
    """eos, a stop token id or a stop string."""
    LENGTH = "length"
    """max_tokens or max_model_len."""
    ABORT = "abort"
    """The caller aborted the request."""
    ERROR = "error"
    """The request cannot continue; `CompletionOutput.error` says why. Other requests are not affected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprob:
    """Log-probability of one token under the model, before penalties, temperature and truncation."""

    logprob: float
    rank: int
    """1 for the most likely token; ties count the lower id first."""
    decoded_token: str | None = None
    """The token's text; a byte that is a part of a character is written as \\xe9."""
    token_bytes: bytes | None = None
    """The bytes that the token adds to the text; those of all tokens, joined, are the text's UTF-8."""


@dataclass(slots=True, kw_only=True)
class SpeculationStats:
    """Counts of steps and drafts. Only emitted tokens and real drafts are counted."""

    max_drafts: int = 0
    """k, the largest number of drafts per step."""
    num_steps: int = 0
    """Steps that emitted at least one token of the output."""
    num_drafts: int = 0
    """Steps in which at least one draft token was verified."""
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_accepted_tokens_per_pos: list[int] = field(default_factory=list)
    is_synthetic: bool = False
    """Acceptance was drawn for a benchmark: the tokens are not the model's."""

    @property
    def mean_acceptance_length(self) -> float:
        """1 + accepted / drafts: mean number of tokens per step with drafts."""
        return 1.0 + self.num_accepted_tokens / self.num_drafts if self.num_drafts else 1.0

    @property
    def acceptance_rate_per_pos(self) -> list[float]:
        """Unconditional: accepted at position i, over all steps with drafts."""
        return [count / self.num_drafts if self.num_drafts else 0.0 for count in self.num_accepted_tokens_per_pos]

    @property
    def counts(self) -> tuple[int, ...]:
        """All counts, in the order of `OutputDelta.draft_counts`."""
        return (self.num_steps, self.num_drafts, self.num_draft_tokens, *self.num_accepted_tokens_per_pos)

    @classmethod
    def zero(cls, max_drafts: int, *, is_synthetic: bool = False) -> "SpeculationStats":
        """All counts zero, for an engine with at most `max_drafts` drafts per step."""
        return cls(max_drafts=max_drafts, num_accepted_tokens_per_pos=[0] * max_drafts, is_synthetic=is_synthetic)

    @classmethod
    def of_counts(cls, *counts: Sequence[int]) -> "SpeculationStats":
        """The sum of `counts` of several outputs."""
        steps, drafts, draft_tokens, *accepted = [sum(column) for column in zip(*counts, strict=True)]
        return cls(
            max_drafts=len(accepted),
            num_steps=steps,
            num_drafts=drafts,
            num_draft_tokens=draft_tokens,
            num_accepted_tokens=sum(accepted),
            num_accepted_tokens_per_pos=accepted,
        )

    def record(self, *, num_drafts: int, num_accepted: int) -> None:
        """Count one step of one request."""
        self.num_steps += 1
        if num_drafts == 0:
            return
        self.num_drafts += 1
        self.num_draft_tokens += num_drafts
        self.num_accepted_tokens += num_accepted
        counts = self.num_accepted_tokens_per_pos
        for position in range(num_accepted):
            counts[position] += 1

    def add(self, other: "SpeculationStats") -> None:
        """Add another request's counts to these."""
        self.max_drafts = max(self.max_drafts, other.max_drafts)
        self.is_synthetic |= other.is_synthetic
        self.num_steps += other.num_steps
        self.num_drafts += other.num_drafts
        self.num_draft_tokens += other.num_draft_tokens
        self.num_accepted_tokens += other.num_accepted_tokens
        missing = len(other.num_accepted_tokens_per_pos) - len(self.num_accepted_tokens_per_pos)
        self.num_accepted_tokens_per_pos.extend([0] * missing)
        for position, count in enumerate(other.num_accepted_tokens_per_pos):
            self.num_accepted_tokens_per_pos[position] += count


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionOutput:
    """One completion of one prompt. Its repr leaves out what is there for every token."""

    index: int
    text: str
    token_ids: list[int] = field(repr=False)
    finish_reason: str | None
    """"stop", "length", "abort" or "error"; None while it runs."""
    stop_reason: int | str | None = None
    """The token id or the string that ended it; None for eos, length and abort."""
    logprobs: list[dict[int, Logprob]] | None = field(default=None, repr=False)
    is_draft: list[bool] = field(default_factory=list, repr=False)
    """Per token: True where it was an accepted draft, False where the target produced it."""
    error: str | None = None
    """The error message if finish_reason is "error"."""
    logits_digest: str | None = None
    """Rolling 64-bit hash, in hex, of the fp32 logits of every emitted token (`logits_digest=True`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTiming:
    """Seconds that a request spent in each phase. With n completions, the first one to reach a phase counts."""

    queue: float
    """From its arrival until its first step was planned, or until it was aborted."""
    prefill: float | None
    """From then to its first token; None if it has no token."""
    decode: float | None
    """From its first token to its end; None if it has no token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutput:
    """A finished request: prompt, completions and statistics of speculation. Its repr leaves out what is there for
    every token."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int] = field(repr=False)
    outputs: list[CompletionOutput]
    seed: int
    """The seed that was used; passing it again gives the same tokens."""
    num_cached_tokens: int
    """Prompt tokens taken from the prefix cache at the first admission."""
    num_preemptions: int
    speculation: SpeculationStats
    """Sum over all completions."""
    prompt_logprobs: Sequence[dict[int, Logprob] | None] | None = field(default=None, repr=False)
    """One entry per prompt token; None for the first, which has no token before it."""
    timing: RequestTiming | None = None
    """None if the output does not come from an engine."""


@dataclass(slots=True, kw_only=True)
class OutputDelta:
    """The addition of one step to one completion. Texts, token ids and log-probabilities of all deltas add up to the
    whole output.

    Text that may turn out to be the beginning of a stop string, or part of a character, is held back until that is
    decided. A delta is created for each completion and step and sent between processes; it is not frozen, because that
    would double the cost.
    """

    request_id: str
    index: int
    """Index of the completion among the n."""
    text: str
    token_ids: list[int]
    is_draft: list[bool] = field(default_factory=list)
    """Per token: True where it was an accepted draft."""
    draft_counts: tuple[int, ...] = ()
    """Counts for the completion so far: steps, steps with drafts, drafts verified, and drafts accepted at each
    position."""
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    """Set in the last delta of the completion."""
    stop_reason: int | str | None = None
    error: str | None = None
    """The error message if finish_reason is "error"."""
    logits_digest: str | None = None
    """Digest of the whole completion, set in its last delta (`logits_digest=True`)."""
    output: RequestOutput | None = None
    """The whole output, set in the last delta of the request."""
    prompt_index: int = 0
    """Index of the prompt among those given to `LLM.stream`."""
