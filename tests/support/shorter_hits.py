"""A fault for tests: every prefix hit is one block shorter than it could be."""

from dataclasses import replace

import pytest

from outrider.scheduler.prefix import Hit, PrefixCache
from outrider.scheduler.request_state import RequestState


def shorten_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop the last block of every hit; of a hybrid's, all up to the snapshot before."""
    match = PrefixCache.match

    def shorter(self: PrefixCache, state: RequestState) -> Hit:
        hit = match(self, state)
        length = max(hit.num_tokens - self.unit, 0)
        while (
            length
            and self._snapshots is not None
            and not self._snapshots.has(state.block_hashes[length // self.unit - 1])
        ):
            length -= self.unit
        block_ids = [ids[: length // self.unit] for ids in hit.block_ids]
        return replace(hit, num_tokens=length, block_ids=block_ids)

    monkeypatch.setattr(PrefixCache, "match", shorter)
