"""The places in a step's flat batch that a model that pools reads, from the plan of the step.

A result belongs to a whole text or, for a task by token, to one token. Results are in the order of the plan's rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from outrider.core.plan import StepPlan
from outrider.device.staging import Staging

_LISTS = (
    "token_index",
    "sizes",
    "is_activated",
    "text_index",
    "text_rows",
    "text_lengths",
    "first_rows",
    "first_index",
    "part_rows",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledTokens:
    """M results of a step, E of them of whole texts; F rows begin a text, P rows have tokens of one."""

    token_index: Tensor  # [M] int64, place of each result's token; of a text, its last token
    sizes: Tensor  # [M] int64, numbers of the vector that are kept; 0: all
    is_activated: Tensor  # [M] int64, 1 where the last function is applied
    text_index: Tensor  # [E] int64, places of the texts among the results
    text_rows: Tensor  # [E] int64, their table rows
    text_lengths: Tensor  # [E] int64, their numbers of tokens that belong to the vector
    first_rows: Tensor  # [F] int64, table rows whose chunk begins a text
    first_index: Tensor  # [F] int64, place of its first token
    part_rows: Tensor  # [P] int64, table rows of texts with tokens in this step
    part_starts: Sequence[int]  # first token of each of them in the flat batch that belongs to the vector
    part_counts: Sequence[int]  # and how many there are
    token_types: Tensor | None = None  # [T] int64, part of a pair of each token of the step; None: all 0

    @property
    def num_results(self) -> int:
        return self.token_index.shape[0]


def lay_out_pooling(plan: StepPlan, staging: Staging) -> PooledTokens:
    """The places of one plan, in one copy."""
    starts = list(accumulate((row.num_tokens for row in plan.rows), initial=0))
    lists: dict[str, list[int]] = {name: [] for name in _LISTS}
    part_starts, part_counts = [], []
    for row, start in zip(plan.rows, starts, strict=False):
        pooled = row.pooled
        assert pooled is not None, f"request {row.request_id} generates"
        if not pooled.is_by_token:
            lists["part_rows"].append(row.row)
            skipped = min(max(pooled.num_skipped - pooled.start, 0), row.num_tokens)
            part_starts.append(start + skipped)
            part_counts.append(row.num_tokens - skipped)
            if pooled.start == 0:
                lists["first_rows"].append(row.row)
                lists["first_index"].append(start)
            if pooled.offsets:
                lists["text_index"].append(len(lists["token_index"]))
                lists["text_rows"].append(row.row)
                lists["text_lengths"].append(pooled.start + row.num_tokens - pooled.num_skipped)
        lists["token_index"] += [start + offset for offset in pooled.offsets]
        lists["sizes"] += [pooled.size] * len(pooled.offsets)
        lists["is_activated"] += [int(pooled.activates)] * len(pooled.offsets)
    if any(row.pooled.token_types for row in plan.rows if row.pooled is not None):
        lists["token_types"] = [
            one for row in plan.rows if row.pooled for one in row.pooled.token_types or [0] * row.num_tokens
        ]
    return PooledTokens(part_starts=part_starts, part_counts=part_counts, **staging.put(lists))
