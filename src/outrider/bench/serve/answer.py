"""What one request got from a server, with the time of every piece. Plain data."""

from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True, kw_only=True)
class Answer:
    """What one request got. Times are seconds of `time.perf_counter`."""

    sent: float
    deliveries: list[float] = field(default_factory=list)
    """When each piece of output came; a piece may be several tokens."""
    ended: float = 0.0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    text: str = ""
    error: str | None = None
    """Why it failed; None where it did not."""

    @property
    def ttft(self) -> float:
        """To the first piece of output; to the end, where no output has text."""
        return (self.deliveries[0] if self.deliveries else self.ended) - self.sent

    @property
    def latency(self) -> float:
        """To the last piece of output, or likewise."""
        return (self.deliveries[-1] if self.deliveries else self.ended) - self.sent

    @property
    def itl(self) -> list[float]:
        """Between pieces."""
        times = self.deliveries
        return [after - before for before, after in pairwise(times)]

    @property
    def tpot(self) -> float | None:
        """Of each token but the first; None where there is but one."""
        count = self.num_output_tokens - 1
        return (self.latency - self.ttft) / count if count > 0 else None
