"""Protocols of the two questions that the scheduler asks about text; `engine/` answers them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from outrider.core.outputs import FinishReason
from outrider.scheduler.request_state import RequestState


@dataclass(frozen=True, slots=True)
class Stop:
    """The end of an output."""

    reason: FinishReason
    stop_reason: int | str | None = None
    """The stop token id or stop string; None if eos or a limit ended the output."""


class StopRule(Protocol):
    """Decides where an output ends."""

    def check(self, state: RequestState, token_ids: tuple[int, ...]) -> tuple[int, Stop | None]:
        """The number of newly emitted `token_ids` that belong to the output, and its end if one of them ended it.

        Called before they are appended to `state`.
        """
        ...


class TokenRule(Protocol):
    """Decides which tokens a request with a grammar may produce."""

    def masks(self, state: RequestState, drafts: Sequence[int]) -> tuple[bytes, ...]:
        """One mask for the next token, and one after each leading draft that the grammar allows."""
        ...

    def accept(self, state: RequestState, token_ids: Sequence[int]) -> str | None:
        """Follow confirmed tokens. Returns an error message if the output cannot continue, else None."""
        ...
