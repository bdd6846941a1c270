"""What a request took, as `usage` of an answer: OpenAI's counts, and what speculation did."""

from typing import Any

from outrider.core.outputs import OutputDelta, SpeculationStats


class Usage:
    """Counts of one answer, growing with its deltas."""

    def __init__(self, *, num_prompt_tokens: int, num_drafts: int) -> None:
        """num_drafts: k of the engine."""
        self._num_prompt_tokens = num_prompt_tokens
        self._num_completion_tokens = 0
        self._num_cached_tokens = 0
        self._speculation = SpeculationStats(max_drafts=num_drafts, num_accepted_tokens_per_pos=[0] * num_drafts)

    def add(self, delta: OutputDelta) -> None:
        """Count what is new. The tokens of a step are accepted drafts, then one of the target's if no stop cut it."""
        self._num_completion_tokens += len(delta.token_ids)
        if delta.output is not None:
            self._num_cached_tokens += delta.output.num_cached_tokens
        stats = self._speculation
        stats.num_drafts += delta.num_drafts
        stats.num_draft_tokens += delta.num_draft_tokens
        place = 0
        for was_draft in delta.is_draft:
            if was_draft:
                stats.num_accepted_tokens += 1
                stats.num_accepted_tokens_per_pos[place] += 1
                place += 1
            else:
                stats.num_steps += 1
                place = 0
        stats.num_steps += place > 0

    def body(self) -> dict[str, Any]:
        """The JSON of it."""
        stats = self._speculation
        return {
            "prompt_tokens": self._num_prompt_tokens,
            "completion_tokens": self._num_completion_tokens,
            "total_tokens": self._num_prompt_tokens + self._num_completion_tokens,
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
                "num_accepted_tokens_per_pos": list(stats.num_accepted_tokens_per_pos),
                "mean_acceptance_length": stats.mean_acceptance_length,
            },
        }
