"""Log-probabilities of a prompt, as columns: tens of thousands of objects, made at once, would hold up every stream.

Columns are made in the engine and cross the socket in milliseconds. The objects are made when they are first read.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from outrider.core.outputs import Logprob
from outrider.core.plan import TokenLogprobs

Names = Mapping[int, tuple[str, bytes]]
"""Text and bytes of each token."""


class PromptLogprobs(Sequence[dict[int, Logprob] | None]):
    """One entry per prompt token: log-probabilities by token id; None for the first, which has no token before it."""

    def __init__(
        self,
        token_ids: Sequence[int],
        scores: Sequence[TokenLogprobs],
        *,
        name: Callable[[int, bool], tuple[str, bytes]] | None,
        num_first: int = 0,
    ) -> None:
        """token_ids: the prompt. scores: of its tokens from the second on. name: text and bytes of a token, and whether
        it begins a text, as the tokens of the first `num_first` scores do; None without a tokenizer."""
        self._counts = array("i", [len(entry.top_ids) for entry in scores])
        self._top_ids = array("q", [top_id for entry in scores for top_id in entry.top_ids])
        self._top_logprobs = array("d", [value for entry in scores for value in entry.top_logprobs])
        self._token_ids = array("q", token_ids[1 : 1 + len(scores)])
        self._logprobs = array("d", [entry.logprob for entry in scores])
        self._ranks = array("q", [entry.rank for entry in scores])
        self._num_first = num_first
        self._names: tuple[Names, Names] | None = None  # inside a text, at its beginning
        if name is not None:
            cut = sum(self._counts[:num_first])
            inside = {*self._top_ids[cut:], *self._token_ids[num_first:]}
            begins = {*self._top_ids[:cut], *self._token_ids[:num_first]}
            self._names = (
                {token_id: name(token_id, False) for token_id in inside},
                {token_id: name(token_id, True) for token_id in begins},
            )
        self._places: list[dict[int, Logprob] | None] | None = None

    def _made(self) -> list[dict[int, Logprob] | None]:
        if self._places is None:
            self._places = list(self._make())
        return self._places

    def _make(self) -> Iterator[dict[int, Logprob] | None]:
        yield None
        start = 0
        for index, count in enumerate(self._counts):
            end = start + count
            ranked = enumerate(zip(self._top_ids[start:end], self._top_logprobs[start:end], strict=True), start=1)
            entries = [(token_id, value, rank) for rank, (token_id, value) in ranked]
            entries.append((self._token_ids[index], self._logprobs[index], self._ranks[index]))
            if self._names is None:
                yield {token_id: Logprob(logprob=value, rank=rank) for token_id, value, rank in entries}
            else:
                names = self._names[index < self._num_first]
                yield {
                    token_id: Logprob(
                        logprob=value, rank=rank, decoded_token=names[token_id][0], token_bytes=names[token_id][1]
                    )
                    for token_id, value, rank in entries
                }
            start = end

    def __len__(self) -> int:
        return 1 + len(self._counts)

    def __getitem__(self, index: Any) -> Any:
        return self._made()[index]

    def __iter__(self) -> Iterator[dict[int, Logprob] | None]:
        return iter(self._made())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._made() == list(other)

    def __hash__(self) -> int:
        raise TypeError("log-probabilities of a prompt are compared entry by entry and have no hash")

    def __repr__(self) -> str:
        return repr(self._made())
