"""Data of a conversation in a terminal: settings, and an answer as it grows. Knows no engine and no server."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from outrider.core.outputs import SpeculationStats

Message = dict[str, str]
"""{"role", "content"}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Parameters of the next answer."""

    temperature: float | None = None
    """None: the recommendation of the model or its server."""
    seed: int | None = None
    """None: drawn for each answer."""
    max_tokens: int | None = None
    """None: as many as the model's context holds."""
    has_drafts: bool = True
    """False runs without speculation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The addition of one step to an answer."""

    pieces: Sequence[tuple[str, bool | None]] = ()
    """Texts, each with its origin: True an accepted draft, False the target, None unknown."""
    token_ids: Sequence[int] = ()
    """Empty if the server does not report them."""
    stats: SpeculationStats | None = None
    """Counts of the answer so far; None if the server does not report them."""
    num_tokens: int | None = None
    """Tokens of the answer so far; None if the server does not report them."""


class Answerer(Protocol):
    """Answers conversations."""

    description: str
    """One line on the model and its drafter."""
    has_drafter: bool

    def answer(self, messages: Sequence[Message], settings: Settings) -> Generator[Update, None, None]:
        """The answer step by step; `settings.seed` is set. Closing the iterator ends it. Raises OutriderError."""
        ...


@dataclass(slots=True)
class Answer:
    """One answer, with what it cost."""

    settings: Settings
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    num_tokens: int | None = None
    stats: SpeculationStats | None = None
    begin: float = field(default_factory=time.monotonic)
    first: float | None = None
    """Time of the first token, time.monotonic()."""
    end: float = 0.0

    def add(self, update: Update) -> None:
        """Add one step."""
        self.text += "".join(text for text, _ in update.pieces)
        self.token_ids += update.token_ids
        self.stats = update.stats or self.stats
        self.num_tokens = update.num_tokens if update.num_tokens is not None else self.num_tokens
        self.end = time.monotonic()
        if self.first is None and (update.pieces or update.token_ids):
            self.first = self.end

    @property
    def seconds(self) -> float:
        """Seconds from the question to the last token."""
        return max(self.end - self.begin, 0.0)

    @property
    def figures(self) -> str:
        """One line on tokens, steps, drafts and time."""
        parts = [f"{self.num_tokens} tokens"] if self.num_tokens is not None else []
        stats = self.stats
        if stats is not None and stats.num_steps and self.num_tokens:
            parts[0] += f" in {stats.num_steps} steps ({self.num_tokens / stats.num_steps:.2f} a step)"
            if stats.num_draft_tokens:
                share = stats.num_accepted_tokens / stats.num_draft_tokens
                parts.append(f"{stats.num_accepted_tokens} of {stats.num_draft_tokens} drafts accepted ({share:.0%})")
        parts.append(f"{self.seconds:.1f} s")
        return " · ".join(parts)


def comparison(before: Answer, after: Answer) -> tuple[str, bool]:
    """Compare two answers to one question in a sentence, with the cost of each; True if they are the same."""
    if before.token_ids or after.token_ids:
        is_same, noun = before.token_ids == after.token_ids, "tokens"
    else:
        is_same, noun = before.text == after.text, "text"
    if not is_same:
        return f"The {noun} differ from those of the answer before.", False
    with_drafts, plain = (before, after) if before.settings.has_drafts else (after, before)
    verdict = f"The same {noun}" + (f", all {len(after.token_ids)}" if after.token_ids else "")
    if with_drafts.settings.has_drafts == plain.settings.has_drafts:
        return f"{verdict}, again.", True
    cost = f"{verdict}. With drafts {_cost(with_drafts)}, without {_cost(plain)}"
    if with_drafts.seconds > plain.seconds:
        return f"{cost}: here drafts cost more time than they saved.", True
    return f"{cost}: drafts made it {plain.seconds / max(with_drafts.seconds, 1e-9):.2f} times as fast.", True


def _cost(answer: Answer) -> str:
    steps = f"{answer.stats.num_steps} steps, " if answer.stats is not None and answer.stats.num_steps else ""
    return f"{steps}{answer.seconds:.2f} s"
