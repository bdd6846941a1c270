"""`usage` of an answer: OpenAI's token counts, and counts of speculative decoding."""

from typing import Any

from outrider.core.outputs import OutputDelta, SpeculationStats


class Usage:
    """Counts of one answer; those of a stream grow with it."""

    def __init__(self, *, num_prompt_tokens: int, num_drafts: int) -> None:
        self.num_prompt_tokens = num_prompt_tokens
        self.num_completion_tokens = 0
        self._num_cached_tokens = 0
        self._num_drafts = num_drafts
        self._counts: dict[tuple[str, int], tuple[int, ...]] = {}  # by request id and completion index

    def add_delta(self, delta: OutputDelta) -> None:
        """Adds a delta of the answer."""
        self.num_completion_tokens += len(delta.token_ids)
        self._counts[delta.request_id, delta.index] = delta.draft_counts
        if delta.output is not None:
            self._num_cached_tokens += delta.output.num_cached_tokens

    def body(self) -> dict[str, Any]:
        """The JSON value."""
        stats = SpeculationStats.of_counts([0] * (3 + self._num_drafts), *self._counts.values())
        return {
            "prompt_tokens": self.num_prompt_tokens,
            "completion_tokens": self.num_completion_tokens,
            "total_tokens": self.num_prompt_tokens + self.num_completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self._num_cached_tokens},
            "completion_tokens_details": {
                "accepted_prediction_tokens": stats.num_accepted_tokens,
                "rejected_prediction_tokens": stats.num_draft_tokens - stats.num_accepted_tokens,
            },
            "speculation": {
                "num_steps": stats.num_steps,
                "num_drafts": stats.num_drafts,
                "num_draft_tokens": stats.num_draft_tokens,
                "num_accepted_tokens": stats.num_accepted_tokens,
                "num_accepted_tokens_per_pos": stats.num_accepted_tokens_per_pos,
                "mean_acceptance_length": stats.mean_acceptance_length,
            },
        }
