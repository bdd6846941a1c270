"""Stored responses: the latest ones, in the memory of the server's process, within a limit of bytes.

Nothing is written to disk, and a restart forgets all of them.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_RESPONSES = 4096
MAX_BYTES = 64 << 20
"""Maximum size of all stored responses with their conversations, counted as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """A response, and the conversation that ends with it."""

    body: dict[str, Any]
    items: Sequence[Any]
    """Input items of the whole conversation, without its output."""
    num_bytes: int


class ResponseStore:
    """The stored responses by id, the oldest first. Not thread-safe."""

    def __init__(self, *, max_responses: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._responses: OrderedDict[str, StoredResponse] = OrderedDict()
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._responses)

    def add(self, body: dict[str, Any], items: Sequence[Any]) -> None:
        """Stores a response and drops the oldest ones beyond the limits; one that is larger than them is not kept."""
        texts = [json.dumps(body), *(item.model_dump_json() for item in items)]
        stored = StoredResponse(body=body, items=items, num_bytes=sum(map(len, texts)))
        if stored.num_bytes > self._max_bytes:
            return
        self._responses[body["id"]] = stored
        self._num_bytes += stored.num_bytes
        while len(self._responses) > self._max_responses or self._num_bytes > self._max_bytes:
            _, oldest = self._responses.popitem(last=False)
            self._num_bytes -= oldest.num_bytes

    def find(self, response_id: str) -> StoredResponse | None:
        """The stored response of this id."""
        return self._responses.get(response_id)

    def find_item(self, item_id: str) -> dict[str, Any] | None:
        """An output item of a stored response."""
        for stored in reversed(self._responses.values()):
            for item in stored.body["output"]:
                if item["id"] == item_id:
                    found: dict[str, Any] = item
                    return found
        return None

    def delete(self, response_id: str) -> bool:
        """Removes the stored response of this id; False if there is none."""
        stored = self._responses.pop(response_id, None)
        if stored is not None:
            self._num_bytes -= stored.num_bytes
        return stored is not None

    def missing(self, response_id: str) -> str:
        """An error message for a response that is not stored."""
        return (
            f"response {response_id!r} is not stored. It was made with store: false, was deleted, or was dropped: the "
            f"server keeps the latest {self._max_responses} responses and {self._max_bytes} bytes in memory. Send its "
            "items in input."
        )
