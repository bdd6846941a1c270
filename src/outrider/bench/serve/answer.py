"""The answer to one request, with the time of every piece. Plain data."""

from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True, kw_only=True)
class Answer:
    """The answer to one request. Times are seconds of `time.perf_counter`."""

    sent: float
    deliveries: list[float] = field(default_factory=list)
    """Time of each piece of output; a piece may be several tokens."""
    ended: float = 0.0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    text: str = ""
    error: str | None = None
    """Why the request failed; None if it succeeded."""

    @property
    def ttft(self) -> float:
        """Seconds to the first piece of output, or to the end if no output has text."""
        return (self.deliveries[0] if self.deliveries else self.ended) - self.sent

    @property
    def latency(self) -> float:
        """Seconds to the last piece of output, or to the end if no output has text."""
        return (self.deliveries[-1] if self.deliveries else self.ended) - self.sent

    @property
    def itl(self) -> list[float]:
        """Seconds between pieces."""
        times = self.deliveries
        return [after - before for before, after in pairwise(times)]

    @property
    def tpot(self) -> float | None:
        """Mean seconds per token after the first; None if there is only one."""
        count = self.num_output_tokens - 1
        return (self.latency - self.ttft) / count if count > 0 else None
