"""Index by name of the existing snapshots of recurrent states: the host's part of prefix caching for hybrids.

A cached block holds keys and values, which serve all later tokens; a state serves only the next token. So a request of
a hybrid starts after cached blocks only if a snapshot was taken exactly at their end. A snapshot has the name of the
last block before it, and the name covers all tokens that the state depends on: only requests with those tokens find it.
"""

from collections import OrderedDict


class SnapshotIndex:
    """Names of up to `num_snapshots` snapshots; when it is full, the least recently used one is overwritten."""

    def __init__(self, num_snapshots: int) -> None:
        self._id_of: OrderedDict[bytes, int] = OrderedDict()
        self._free = list(range(num_snapshots - 1, -1, -1))

    def find(self, name: bytes) -> int | None:
        """Id of a snapshot, or None; marks it as the most recently used."""
        if name in self._id_of:
            self._id_of.move_to_end(name)
        return self._id_of.get(name)

    def has(self, name: bytes) -> bool:
        """True if there is a snapshot of this name."""
        return name in self._id_of

    def drop(self, name: bytes) -> None:
        """Free the id of a snapshot, if it is still there."""
        if name in self._id_of:
            self._free.append(self._id_of.pop(name))

    def take(self, name: bytes) -> int | None:
        """Take an id for a new snapshot; None if the index has no ids at all."""
        assert name not in self._id_of, "there is a snapshot of this name"
        if self._free:
            snapshot_id = self._free.pop()
        elif self._id_of:
            _, snapshot_id = self._id_of.popitem(last=False)
        else:
            return None
        self._id_of[name] = snapshot_id
        return snapshot_id
