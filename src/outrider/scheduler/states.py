"""Which snapshots of recurrent states there are, and where: the host's part of prefix caching for hybrids.

A cached block holds keys and values, which serve any token behind them; a state serves only the token that comes next.
So a request of a hybrid starts behind cached blocks only where a snapshot was taken at their very end. A snapshot has
the name of the last block before it, and with it the tokens that it depends on, so it can be wrong for nobody.
"""

from collections import OrderedDict


class StateSlots:
    """Names of the snapshots in `num_slots` slots; the one that was longest of no use is overwritten first."""

    def __init__(self, num_slots: int) -> None:
        self._slot_of: OrderedDict[bytes, int] = OrderedDict()
        self._free = list(range(num_slots - 1, -1, -1))

    def find(self, name: bytes) -> int | None:
        """The slot of a snapshot, which is now the last to be overwritten."""
        if name in self._slot_of:
            self._slot_of.move_to_end(name)
        return self._slot_of.get(name)

    def has(self, name: bytes) -> bool:
        return name in self._slot_of

    def drop(self, name: bytes) -> None:
        """Free the slot of a snapshot, where it is still there."""
        if name in self._slot_of:
            self._free.append(self._slot_of.pop(name))

    def take(self, name: bytes) -> int | None:
        """A slot for a new snapshot; None where there are no slots at all."""
        assert name not in self._slot_of, "there is such a snapshot"
        if self._free:
            slot = self._free.pop()
        elif self._slot_of:
            _, slot = self._slot_of.popitem(last=False)
        else:
            return None
        self._slot_of[name] = slot
        return slot
