"""Counts of one request, and of a run of many: the data that is judged. Uses no engine and no file."""

from collections.abc import Sequence
from dataclasses import dataclass

from outrider.core.outputs import SpeculationStats
from outrider.gate.prompts import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request: its text as digests and ids, and the drafter's counts."""

    prompt: str
    """Id of the prompt. The turns of one prompt share it and form one cluster."""
    turn: int
    """Number of the turn, from 1."""
    category: str
    seed: int
    prompt_digest: str
    """Digest of the prompt's token ids (engine) or messages (server)."""
    num_tokens: int
    """Number of output tokens."""
    num_steps: int
    """Number of steps that gave an output token; 0 if a server does not report it."""
    num_drafts: int
    """Number of steps with drafts."""
    num_draft_tokens: int
    num_accepted_tokens: int
    num_accepted_tokens_per_pos: tuple[int, ...]
    """Accepted drafts by position; empty if a server does not report them."""
    accepted_by_step: tuple[int, ...] = ()
    """Accepted drafts of each step, in order. A step gives one token more, unless the last one was cut short."""
    token_ids: tuple[int, ...] = ()
    logits_digest: str = ""
    """Rolling 64-bit hash, in hex, of the fp32 logits of every output token."""
    text_digest: str = ""
    """Digest of a server's text, which comes without token ids."""

    @property
    def tokens_digest(self) -> str:
        """64-bit hash, in hex, of the output's token ids or of its text."""
        return digest(" ".join(map(str, self.token_ids))) if self.token_ids else self.text_digest

    @property
    def is_draft(self) -> list[bool]:
        """For each output token, True if it was an accepted draft."""
        flags: list[bool] = []
        for accepted in self.accepted_by_step:
            flags += [True] * accepted + [False]
        return flags[: self.num_tokens]

    @property
    def stats(self) -> SpeculationStats:
        """The counts as the engine's `SpeculationStats`."""
        return SpeculationStats(
            max_drafts=len(self.num_accepted_tokens_per_pos),
            num_steps=self.num_steps,
            num_drafts=self.num_drafts,
            num_draft_tokens=self.num_draft_tokens,
            num_accepted_tokens=self.num_accepted_tokens,
            num_accepted_tokens_per_pos=list(self.num_accepted_tokens_per_pos),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The samples of a run over a prompt file."""

    samples: tuple[Sample, ...]
    key: dict[str, str]
    """Everything the bits depend on besides weights, prompts and parameters."""
    versions: dict[str, str]
    num_drafts: int
    """k: the maximum number of drafts in a step."""

    @property
    def is_engine(self) -> bool:
        """True if the counts came from this engine, not over HTTP."""
        return "endpoint" not in self.key

    @property
    def stats(self) -> SpeculationStats:
        """Counts of all samples together."""
        return total(self.samples)


def total(samples: Sequence[Sample]) -> SpeculationStats:
    """Counts of `samples` together."""
    stats = SpeculationStats()
    for sample in samples:
        stats.add(sample.stats)
    return stats


def accepted_by_step(is_draft: Sequence[bool]) -> tuple[int, ...]:
    """Computes the accepted drafts of each step from the origin of each token: a step ends with the target's own token.

    The last step may end early with an accepted draft (a stop, max_tokens).
    """
    counts, current = [], 0
    for flag in is_draft:
        if flag:
            current += 1
        else:
            counts.append(current)
            current = 0
    return tuple([*counts, current] if current else counts)
