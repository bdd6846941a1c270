"""The forms of a case: the same rows, computed in another way."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from outrider.invariance.calls import Call


@dataclass(frozen=True, slots=True)
class Form:
    """One way to compute rows whose result is known."""

    name: str
    """"3 rows", "a permutation", "chunks of 13"."""
    run: Callable[[], str | None]
    """Says what differs; None if nothing does."""
    is_quick: bool = True
    """False: left out of the quick check, and where time runs out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes of an engine's steps."""

    max_tokens: int
    max_samples: int
    max_length: int
    """Tokens of one request."""
    num_elements: int
    """Number of elements of the largest tensor that a case may make."""
    num_drafts: int


def generator(call: Call) -> torch.Generator:
    """Random numbers on the host, the same for every run and device."""
    return torch.Generator().manual_seed(sum(map(ord, call.name)))
