"""Plans when to save the recurrent states of a hybrid model, so that later requests can start after them.

A state can be saved at its current position, or further on in the tokens that are still buffered; once it has moved
past a position, its value there is lost. So the host keeps, for each running request, a bound on how far its launched
steps may have moved it. `prefix.py` and `snapshot_index.py` know which snapshots exist, and in which memory.

    tokens:  | in the state, at most ... | buffered .................... |
             0                           reach      num_computed_tokens
"""

from dataclasses import dataclass

from outrider.core.plan import STATE_CHUNK, StateSave
from outrider.scheduler.prefix import PrefixCache
from outrider.scheduler.request_state import RequestState


@dataclass(slots=True)
class _Place:
    """Position of the state of one running request."""

    reach: int
    """Upper bound on the tokens over which launched steps may have moved the state."""
    num_shared_tokens: int
    """Leading tokens whose blocks were found at admission, whether or not a snapshot was found at their end."""
    saved: int = 0
    """Length of the last snapshot that decoding took; 0 if it took none."""


class Snapshots:
    """Plans the snapshots of running requests."""

    def __init__(self, prefix: PrefixCache) -> None:
        self._prefix = prefix
        self._block_size = prefix.unit
        self._moves_within_blocks = prefix.unit > STATE_CHUNK
        self._places: dict[RequestState, _Place] = {}
        self._chunk_ends: list[tuple[RequestState, _Place]] = []  # requests whose state the last step moved
        self._saves: list[StateSave] = []

    def begin(self, state: RequestState, *, num_shared_tokens: int) -> None:
        """Start following an admitted request; its state begins after the tokens found in the prefix cache."""
        self._places[state] = _Place(state.num_computed_tokens, num_shared_tokens)

    def chunk_length(self, state: RequestState, start: int, count: int) -> int:
        """Tokens to take of a prompt chunk of `count` tokens from `start`: fewer if a snapshot is needed earlier."""
        shared = self._places[state].num_shared_tokens
        if start < shared < start + count:
            return shared - start  # others share the blocks up to here: end the chunk early for a snapshot
        whole = (start + count) // self._block_size * self._block_size
        if self._moves_within_blocks and whole > start:
            return whole - start  # at the chunk's own end the state would be inside a block
        return count

    def launch_chunk(self, state: RequestState, end: int) -> None:
        """Record a prompt chunk of several tokens: the state moves to the last multiple of STATE_CHUNK up to `end`."""
        place = self._places[state]
        place.reach = end // STATE_CHUNK * STATE_CHUNK
        self._chunk_ends.append((state, place))

    def save_chunk_ends(self) -> None:
        """Save the states where the prompt chunks of the last step left them."""
        for state, place in self._chunk_ends:
            if self._places.get(state) is place:
                self._save(state, place.reach)
        self._chunk_ends.clear()

    def settle(self, state: RequestState, *, num_computed_before: int, is_decode: bool) -> None:
        """Record that a step's tokens are confirmed.

        A step in flight moves a decode row's state over the tokens that were known when this step began, no further.
        Once decoding has filled a block larger than STATE_CHUNK, the state moves on inside the next block, so it is
        saved now; only the last of these snapshots is kept.
        """
        place = self._places[state]
        place.reach = max(place.reach, (num_computed_before + 1) // STATE_CHUNK * STATE_CHUNK)
        if not (self._moves_within_blocks and is_decode):
            return
        length = state.num_computed_tokens // self._block_size * self._block_size
        if num_computed_before < length and place.reach <= length:
            is_new = self._save(state, length, instead_of=place.saved)
            place.saved = length if is_new else 0

    def end(self, state: RequestState) -> None:
        """Save the state after the last full block of confirmed tokens, as the request leaves its row.

        The state is there, or earlier with the tokens in between still buffered, unless a prompt chunk in flight has
        moved it further. Inside a block larger than STATE_CHUNK decoding also moves it, and has saved it on the way.
        """
        length = state.num_computed_tokens // self._block_size * self._block_size
        if self._places[state].reach <= length:
            self._save(state, length)
        del self._places[state]

    def take(self) -> tuple[StateSave, ...]:
        """Take the planned snapshots; the next step saves them before anything else."""
        saves, self._saves = self._saves, []
        return tuple(saves)

    def _save(self, state: RequestState, length: int, *, instead_of: int = 0) -> bool:
        """Plan a snapshot; False if there is one already, or no memory for one."""
        snapshot_id = self._prefix.new_snapshot(state, length, instead_of=instead_of)
        if snapshot_id is not None:
            self._saves.append(StateSave(row=state.row, snapshot_id=snapshot_id, length=length))
        return snapshot_id is not None
