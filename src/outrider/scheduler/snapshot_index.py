"""The snapshots of recurrent states that exist, by name: the host's part of prefix caching for hybrids.

A cached block holds keys and values, which serve any token behind them; a state serves only the token that comes next.
So a request of a hybrid starts behind cached blocks only where a snapshot was taken at their very end. A snapshot has
the name of the last block before it, and the name covers all tokens that the state depends on: it is found by requests
with those tokens and by no others.
"""

from collections import OrderedDict


class SnapshotIndex:
    """Names of up to `num_snapshots` snapshots; to make room, the one that was unused for longest is overwritten."""

    def __init__(self, num_snapshots: int) -> None:
        self._id_of: OrderedDict[bytes, int] = OrderedDict()
        self._free = list(range(num_snapshots - 1, -1, -1))

    def find(self, name: bytes) -> int | None:
        """Id of a snapshot, which now counts as used last."""
        if name in self._id_of:
            self._id_of.move_to_end(name)
        return self._id_of.get(name)

    def has(self, name: bytes) -> bool:
        """True where there is a snapshot of this name."""
        return name in self._id_of

    def drop(self, name: bytes) -> None:
        """Free the id of a snapshot, if it is still there."""
        if name in self._id_of:
            self._free.append(self._id_of.pop(name))

    def take(self, name: bytes) -> int | None:
        """An id for a new snapshot; None where the index has no ids at all."""
        assert name not in self._id_of, "there is a snapshot of this name"
        if self._free:
            snapshot_id = self._free.pop()
        elif self._id_of:
            _, snapshot_id = self._id_of.popitem(last=False)
        else:
            return None
        self._id_of[name] = snapshot_id
        return snapshot_id
