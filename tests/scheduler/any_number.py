"""A draft policy without reason: every step asks for another number of drafts."""

import random
from collections.abc import Sequence

from outrider.scheduler.request_state import RequestState


class AnyNumber:
    """0 … k, by its own dice."""

    def __init__(self, most: int, seed: int) -> None:
        self._most = most
        self._random = random.Random(seed + 2)

    def choose(self, requests: Sequence[RequestState]) -> int:
        return self._random.randint(0, self._most)

    def see_row(self, state: RequestState, *, num_drafts: int, num_accepted: int) -> None:
        assert 0 <= num_accepted <= self._most and 0 <= num_drafts <= self._most

    def see_step(self, *, num_rows: int, num_drafts: int, num_proposals: int, seconds: float) -> None:
        raise AssertionError("nobody measures time here")
