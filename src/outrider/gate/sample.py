"""What one request showed, and a run of many: the counts that everything else judges. No engine, no file."""

from collections.abc import Sequence
from dataclasses import dataclass

from outrider.core.outputs import SpeculationStats
from outrider.gate.prompts import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request: its text as digests and ids, and what the drafter did, as integers."""

    prompt: str
    """Id of the prompt; the turns of one prompt share it and count as one cluster."""
    turn: int
    """From 1."""
    category: str
    seed: int
    prompt_digest: str
    """Of the prompt's token ids (engine) or messages (server)."""
    num_tokens: int
    """Output tokens."""
    num_steps: int
    """Steps that gave an output token; 0 where a server does not tell."""
    num_drafts: int
    """Steps with drafts."""
    num_draft_tokens: int
    num_accepted_tokens: int
    num_accepted_tokens_per_pos: tuple[int, ...]
    """Empty where a server does not tell."""
    accepted_by_step: tuple[int, ...] = ()
    """Accepted drafts of every step, in order; a step gives one token more, but for a last one cut short."""
    token_ids: tuple[int, ...] = ()
    logits_digest: str = ""
    """Rolling 64-bit hash, in hex, of the fp32 logits of every output token."""
    text_digest: str = ""
    """Of a server's text, where there are no token ids."""

    @property
    def tokens_digest(self) -> str:
        """64 bits, in hex, of the output's token ids, or of its text."""
        return digest(" ".join(map(str, self.token_ids))) if self.token_ids else self.text_digest

    @property
    def is_draft(self) -> list[bool]:
        """Per output token: True where it was an accepted draft."""
        flags: list[bool] = []
        for accepted in self.accepted_by_step:
            flags += [True] * accepted + [False]
        return flags[: self.num_tokens]

    @property
    def stats(self) -> SpeculationStats:
        """The counts in the engine's own form."""
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
    """A run over a prompt file."""

    samples: tuple[Sample, ...]
    key: dict[str, str]
    """All that the bits depend on besides weights, prompts and parameters."""
    versions: dict[str, str]
    num_drafts: int
    """k: the most drafts a step can have."""

    @property
    def is_engine(self) -> bool:
        """True where the counts came from this engine and not over HTTP."""
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
    """Accepted drafts of each step, from where each token came: every step ends with the target's own token.

    The last step may be cut short behind an accepted draft (a stop, max_tokens).
    """
    counts, current = [], 0
    for flag in is_draft:
        if flag:
            current += 1
        else:
            counts.append(current)
            current = 0
    return tuple([*counts, current] if current else counts)
