"""A step while it is being planned."""

from dataclasses import dataclass, field

from outrider.core.plan import NewBlocks, RowPlan
from outrider.scheduler.request_state import RequestState
from outrider.scheduler.step_limit import StepLimit


@dataclass(slots=True)
class OpenStep:
    """Rows and new blocks so far, and the remaining token budget."""

    left: int
    """Tokens that still fit."""
    limit: StepLimit | None = None
    """Limit on the time of the step; None if no call waits for another one, or times are not known."""
    rows: dict[str, RowPlan] = field(default_factory=dict)
    """Rows by request id, in the order of the step."""
    is_short: bool = False
    """A running request lacks blocks: no waiting request is admitted in this step."""
    _grown: dict[str, tuple[RequestState, list[int]]] = field(default_factory=dict)
    """Requests that got blocks in this step, with the number that they had before in each group."""

    def put(self, row: RowPlan) -> None:
        """Add a request's row."""
        self.rows[row.request_id] = row
        self.left -= row.num_tokens
        if self.limit is not None:
            self.limit.put(row)

    def note_growth(self, state: RequestState, *, is_new: bool = False) -> None:
        """Record that a request is about to get blocks, or has got its first ones (`is_new`)."""
        counts = [0 if is_new else len(held.ids) for held in state.blocks]
        self._grown.setdefault(state.request_id, (state, counts))

    def drop(self, request_id: str) -> None:
        """Remove a request that was preempted for another one of this step."""
        self._grown.pop(request_id, None)
        if request_id in self.rows:
            row = self.rows.pop(request_id)
            self.left += row.num_tokens
            if self.limit is not None:
                self.limit.drop(row)

    def new_blocks(self) -> tuple[NewBlocks, ...]:
        """The blocks that requests got in this step."""
        return tuple(
            NewBlocks(row=state.row, first_index=first, block_ids=tuple(held.ids[first:]), group=group)
            for state, counts in self._grown.values()
            for group, (first, held) in enumerate(zip(counts, state.blocks, strict=True))
            if first < len(held.ids)
        )
