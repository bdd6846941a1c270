"""Time of a step with drafts, compared with one without: what drafts must give before they save time. Plain data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftCost:
    """Measured on one engine, before its first request."""

    num_drafts: int
    """Drafts of each row."""
    ratios: dict[int, float]
    """By number of rows in the step, ascending: seconds with drafts, divided by seconds without."""

    @property
    def is_always_too_high(self) -> bool:
        """Even if all drafts were accepted, a step would take more time than it saves."""
        return min(self.ratios.values()) > 1 + self.num_drafts

    def exceeds(self, acceptance_length: float) -> bool:
        """True if steps with this acceptance length take more time than they save, whatever number of rows they have.

        An acceptance length counts steps with drafts only, so over all steps drafts save even less."""
        return min(self.ratios.values()) > acceptance_length

    @property
    def figures(self) -> str:
        """The ratios, as a sentence without its end."""
        (least, ratio), *others = self.ratios.items()
        step = f"with {_counted(least, 'request')} a step with {_counted(self.num_drafts, 'draft')}"
        said = f"{step} takes {ratio:.2f} times as long as one without"
        return ", ".join([said, *(f"with {_counted(rows, 'request')} {ratio:.2f} times" for rows, ratio in others)])

    def __str__(self) -> str:
        if self.is_always_too_high:
            most = 1 + self.num_drafts
            return f"drafts cost more time than they save: {self.figures}, and it gives at most {most} tokens a request"
        return f"{self.figures}; drafts save time where the acceptance length is higher"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
