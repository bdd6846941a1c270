"""When a request waited, was planned first, and told its first token."""

import time
from dataclasses import dataclass

from outrider.core.outputs import RequestTiming


@dataclass(slots=True, kw_only=True)
class RequestTimes:
    """Times of the events of a prompt, in seconds of `time.monotonic`; None: not yet."""

    queued: float
    planned: float | None = None
    first_token: float | None = None

    def plan(self) -> None:
        """Note that the first step of the request is planned now; later ones change nothing."""
        if self.planned is None:
            self.planned = time.monotonic()

    def timing(self, ended: float) -> RequestTiming:
        """Durations, for a prompt whose last part ended at `ended`."""
        planned = ended if self.planned is None else self.planned
        first = self.first_token
        return RequestTiming(
            queue=planned - self.queued,
            prefill=None if first is None else first - planned,
            decode=None if first is None else ended - first,
        )
