"""Saves and loads snapshots of recurrent states as the plan says, all layers together.

The scheduler decides which snapshot belongs to which prefix; the cache defines the contents of a state.
"""

from outrider.attention.caches.delta_state import StateCache
from outrider.core.plan import RowAdmission, StateSave
from outrider.device.table import RequestTable
from outrider.kernels import Kernels


class StateSnapshots:
    """Copies states between rows and snapshots; does nothing for a model without states."""

    def __init__(self, states: StateCache | None, table: RequestTable, kernels: Kernels) -> None:
        self._states = states
        self._table = table
        self._kernels = kernels

    def save(self, saves: tuple[StateSave, ...]) -> None:
        """Take snapshots of rows; if several saves name the same snapshot, the last one counts."""
        if self._states is None or not saves:
            return
        saves = tuple({save.snapshot_id: save for save in saves}.values())
        put = self._table.put(
            {
                "rows": [save.row for save in saves],
                "slots": [save.snapshot_id for save in saves],
                "lengths": [save.length for save in saves],
            }
        )
        self._states.save(self._kernels, sources=self._table.state_lengths[put["rows"]], **put)

    def load(self, admissions: tuple[RowAdmission, ...]) -> None:
        """Start rows from the snapshots that their admissions name."""
        started = [entry for entry in admissions if entry.snapshot_id >= 0]
        if self._states is None or not started:
            return
        put = self._table.put(
            {
                "rows": [entry.row for entry in started],
                "slots": [entry.snapshot_id for entry in started],
                "lengths": [entry.num_computed_tokens for entry in started],
            }
        )
        self._states.load(self._kernels, **put)
