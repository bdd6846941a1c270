"""Protocols of the two questions that the scheduler asks about text; `engine/` answers them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from outrider.core.outputs import FinishReason
from outrider.scheduler.request_state import RequestState


@dataclass(frozen=True, slots=True)
class Stop:
    """The end of an output."""

    reason: FinishReason
    stop_reason: int | str | None = None
    """The stop token id or stop string; None if eos or a limit ended the output."""


Masks = Any
"""Masks of a request's leading samples: an array [number, an even number of words] int32, where token t is allowed if
bit t % 32 of word t // 32 is 1. The scheduler does not look at them."""


class StopRule(Protocol):
    """Decides where an output ends."""

    def check(self, state: RequestState, token_ids: tuple[int, ...]) -> tuple[int, Stop | None]:
        """The number of newly emitted `token_ids` that belong to the output, and its end if one of them ended it.

        Called before they are appended to `state`.
        """
        ...


class TokenRule(Protocol):
    """Decides which tokens a request with a grammar may produce."""

    def masks(self, requests: Sequence[tuple[RequestState, Sequence[int]]]) -> Sequence[Masks]:
        """For each request and its drafts, one mask for the next token, and one after each leading draft that the
        grammar allows."""
        ...

    def failure(self, state: RequestState) -> str | None:
        """The error with which the masks of the request's last step could not be made, else None."""
        ...

    def accept(self, state: RequestState, token_ids: Sequence[int]) -> str | None:
        """Follow confirmed tokens. Returns an error message if the output cannot continue, else None."""
        ...
