"""Policies that choose how many prompt tokens a step computes beside its decode rows.

A step with prompts takes longer than one of pure decoding, and running requests wait for it. The goal is stated once,
here: such a step may take `LONGEST_WAIT`, or `LONGEST_RATIO` times what its decode rows alone take, the longer of the
two. Within this limit the policy takes the numbers of tokens at which prompts cost the least time, because a step's
time is not in proportion to its tokens: reading the weights takes as long for one token as for two hundred, and beyond
that a matrix product is fast only if its tiles fill the device. Knows seconds and tokens; no requests, no device.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Protocol

LONGEST_WAIT = 0.030
"""Seconds."""

LONGEST_RATIO = 4.0
"""A slow device or a large model decodes slowly too, and needs more for prompts."""

PATIENCE = 0.005
"""Seconds that running requests may lose in all if a prompt ends sooner for it. While more requests wait than can get a
row they lose nothing: what counts then is the time of all."""


class PromptBudget(Protocol):
    """Chooses the number of prompt tokens of each step."""

    def choose(self, *, num_decode_tokens: int, num_prompt_tokens: int, has_queue: bool) -> int:
        """At most this many prompt tokens beside `num_decode_tokens`; `num_prompt_tokens` wait to be computed.
        has_queue: more requests wait than can be admitted."""
        ...


class FixedBudget:
    """Fills steps of `most` tokens."""

    def __init__(self, most: int) -> None:
        self._most = most

    def choose(self, *, num_decode_tokens: int, num_prompt_tokens: int, has_queue: bool) -> int:
        return self._most - num_decode_tokens


class MeasuredBudget:
    """Chooses from measured times of steps with prompts.

    Either all prompt tokens run now, padded to the next number of tokens that was measured, or a part of them that
    fills an efficient number exactly, and the rest later: whichever costs running requests less time in all, but for
    `PATIENCE`. Efficient numbers are the corners of the lower convex hull of time over tokens.
    """

    def __init__(self, seconds: Mapping[int, float], *, most: int) -> None:
        """`seconds`: time of a step by its number of tokens, at least one; steps are padded to these. `most`: tokens of
        a step."""
        self._sizes = sorted(size for size in seconds if size <= most)
        assert self._sizes, f"no measured size of {sorted(seconds)} is at most {most}"
        self._seconds = dict(seconds)
        self._hulls = [self._hull(first) for first in range(len(self._sizes))]

    def choose(self, *, num_decode_tokens: int, num_prompt_tokens: int, has_queue: bool) -> int:
        place = bisect_left(self._sizes, num_decode_tokens)
        if place == len(self._sizes):
            return 0  # decode rows alone are more than was measured
        base = self._seconds[self._sizes[place]] if num_decode_tokens else 0.0
        limit = max(LONGEST_WAIT, LONGEST_RATIO * base) if num_decode_tokens else float("inf")
        total = num_decode_tokens + num_prompt_tokens
        part = self._part(place, num_decode_tokens, total, limit)
        whole = self._padded(total)
        if whole is not None and self._seconds[whole] <= limit:
            rest = self._padded(total - part)
            if part == 0 or rest is None:
                return num_prompt_tokens
            in_two = self._seconds[num_decode_tokens + part] + self._seconds[rest] - 2 * base
            if self._seconds[whole] - base <= in_two + (0.0 if has_queue else PATIENCE):
                return num_prompt_tokens
        if part:
            return part
        # no efficient size fits: the largest within the limit, and at least the smallest that has a place for prompts
        larger = [size for size in self._sizes if size > num_decode_tokens]
        allowed = [size for size in larger if self._seconds[size] <= limit] or larger[:1]
        return min(num_prompt_tokens, allowed[-1] - num_decode_tokens) if allowed else 0

    def _part(self, place: int, num_decode_tokens: int, total: int, limit: float) -> int:
        """Prompt tokens that fill the largest efficient size, or 0 if none is small enough."""
        hull = self._hulls[place]
        for size in reversed(hull[: bisect_right(hull, total)]):
            if size > num_decode_tokens and self._seconds[size] <= limit:
                return size - num_decode_tokens
        return 0

    def _padded(self, num_tokens: int) -> int | None:
        """The smallest measured size that holds this many tokens."""
        place = bisect_left(self._sizes, num_tokens)
        return self._sizes[place] if place < len(self._sizes) else None

    def _hull(self, first: int) -> list[int]:
        """Corners of the lower convex hull of the sizes from place `first` on."""
        corners: list[int] = []
        for size in self._sizes[first:]:
            while len(corners) > 1 and self._slope(corners[-2], size) <= self._slope(corners[-2], corners[-1]):
                corners.pop()
            corners.append(size)
        return corners

    def _slope(self, start: int, end: int) -> float:
        return (self._seconds[end] - self._seconds[start]) / (end - start)
