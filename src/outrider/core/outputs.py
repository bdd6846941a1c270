"""What a caller gets back: plain data, no tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class FinishReason(StrEnum):
    """Why an output ended."""

    STOP = "stop"
    """eos, a stop token id or a stop string."""
    LENGTH = "length"
    """max_tokens or max_model_len."""
    ABORT = "abort"
    """The caller took the request back."""
    ERROR = "error"
    """The request could not go on; `CompletionOutput.error` says why. Others are not disturbed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprob:
    """Log-probability of one token under the model, before penalties, temperature and truncation."""

    logprob: float
    rank: int
    """1 for the most likely token; ties count the lower id first."""
    decoded_token: str | None = None


@dataclass(slots=True, kw_only=True)
class SpeculationStats:
    """What the drafter did; counts emitted tokens and real drafts only."""

    max_drafts: int = 0
    """k: the most drafts one step can have."""
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
        """1 + accepted / drafts: tokens a step with drafts gives on average."""
        return 1.0 + self.num_accepted_tokens / self.num_drafts if self.num_drafts else 1.0

    @property
    def acceptance_rate_per_pos(self) -> list[float]:
        """Unconditional: accepted at position i, over all steps with drafts."""
        return [count / self.num_drafts if self.num_drafts else 0.0 for count in self.num_accepted_tokens_per_pos]

    @property
    def counts(self) -> tuple[int, ...]:
        """All counts, as `OutputDelta.draft_counts` has them."""
        return (self.num_steps, self.num_drafts, self.num_draft_tokens, *self.num_accepted_tokens_per_pos)

    @classmethod
    def zero(cls, max_drafts: int, *, is_synthetic: bool = False) -> "SpeculationStats":
        """Nothing counted yet, of an engine with at most `max_drafts` drafts a step."""
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
    """One completion of one prompt."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None
    """"stop", "length", "abort" or "error"; None while it runs."""
    stop_reason: int | str | None = None
    """The token id or the string that ended it; None for eos, length and abort."""
    logprobs: list[dict[int, Logprob]] | None = None
    is_draft: list[bool] = field(default_factory=list)
    """Per token: True where it was an accepted draft, False where the target produced it."""
    error: str | None = None
    """What went wrong, where finish_reason is "error"."""
    logits_digest: str | None = None
    """Rolling 64-bit hash, in hex, of the fp32 logits of every emitted token (`logits_digest=True`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTiming:
    """Where the time of a request went in the engine, in seconds; of n completions, the first to get there counts."""

    queue: float
    """Until its first step was planned, or until it was taken back."""
    prefill: float | None
    """From there to its first token; None where it has none."""
    decode: float | None
    """From its first token to its end, likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutput:
    """A finished request: prompt, completions and what speculation did."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    seed: int
    """The seed that was used; passing it again gives the same tokens."""
    num_cached_tokens: int
    """Prompt tokens taken from the prefix cache at the first admission."""
    num_preemptions: int
    speculation: SpeculationStats
    """Of all completions together."""
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    """One entry for each prompt token; the first has nothing before it and is None."""
    timing: RequestTiming | None = None
    """None where no engine made this output."""


@dataclass(slots=True, kw_only=True)
class OutputDelta:
    """What one step added to one completion. Texts, token ids and log-probabilities of all deltas make the whole.

    Text that may still turn out to be the beginning of a stop string, or a part of a character, comes later. One is
    made for each completion and step, and sent between processes: freezing it would cost as much again.
    """

    request_id: str
    index: int
    """Which of the n completions."""
    text: str
    token_ids: list[int]
    is_draft: list[bool] = field(default_factory=list)
    """Per token: True where it was an accepted draft."""
    draft_counts: tuple[int, ...] = ()
    """Of the completion so far: steps, steps with drafts, drafts verified, and those accepted at each position."""
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    """Set in the last delta of the completion."""
    stop_reason: int | str | None = None
    error: str | None = None
    """What went wrong, where finish_reason is "error"."""
    logits_digest: str | None = None
    """Of the whole completion, in its last delta (`logits_digest=True`)."""
    output: RequestOutput | None = None
    """The whole, in the last delta of the request."""
    prompt_index: int = 0
    """Which of the prompts given to `LLM.stream`."""
