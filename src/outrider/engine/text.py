"""Text of running requests, and where an output ends: eos, stop ids, stop strings, token by token.

`token_ids` ends with the token that completed the stop; the stop's own text is not returned. Whatever the same
step or a later one produced behind it is dropped by the scheduler.
"""

from outrider.core.outputs import FinishReason
from outrider.core.request import Request
from outrider.engine.tokenizer import TextStream, Tokenizer


class OutputText:
    """The text of one request so far."""

    def __init__(self, request: Request, stream: TextStream | None) -> None:
        self._stream = stream
        self._stops = request.params.stop_strings
        self._min_tokens = request.params.min_tokens
        self._num_tokens = 0
        self._stop_ids = frozenset((*request.eos_token_ids, *(request.params.stop_token_ids or ())))
        self.text = ""

    def can_stop_in(self, token_ids: tuple[int, ...]) -> bool:
        """False where none of `token_ids` can end the output, whatever their text."""
        return bool(self._stops) or not self._stop_ids.isdisjoint(token_ids)

    def extend(self, token_ids: tuple[int, ...]) -> None:
        """Append the text of tokens that cannot stop."""
        self._num_tokens += len(token_ids)
        if self._stream is not None:
            self.text += self._stream.extend(token_ids)

    def push(self, token_id: int) -> str | None:
        """Append one token's text; the stop string that it completed, if any (the text is then cut before it)."""
        self._num_tokens += 1
        if self._stream is None:
            return None
        return self._append(self._stream.push(token_id))

    def _append(self, piece: str) -> str | None:
        """The earliest stop string that ends in `piece`, the longest where several start there."""
        self.text += piece
        if not piece or self._num_tokens < self._min_tokens:
            return None
        num_new = len(piece)
        found: tuple[int, int, str] | None = None
        for stop in self._stops:
            place = self.text.find(stop, max(0, len(self.text) - num_new - len(stop) + 1))
            if place >= 0 and (found is None or (place, -len(stop)) < found[:2]):
                found = (place, -len(stop), stop)
        if found is None:
            return None
        self.text = self.text[: found[0]]
        return found[2]

    def finish(self) -> str:
        """The whole text, held-back bytes included."""
        if self._stream is not None:
            self._append(self._stream.flush())
        return self.text


class StopChecker:
    """Follows the text of every running request; the scheduler asks it where an output ends."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._texts: dict[str, OutputText] = {}

    def begin(self, request: Request) -> None:
        """Start following a request."""
        stream = self._tokenizer.stream() if self._tokenizer else None
        self._texts[request.request_id] = OutputText(request, stream)

    def check(self, request: Request, token_ids: tuple[int, ...]) -> tuple[int, FinishReason | None]:
        """How many of the new `token_ids` belong to the output, and why it ends if it does."""
        text = self._texts[request.request_id]
        if len(token_ids) < request.max_total_tokens - request.num_tokens and not text.can_stop_in(token_ids):
            text.extend(token_ids)
            return len(token_ids), None
        stop_token_ids = request.params.stop_token_ids or ()
        for count, token_id in enumerate(token_ids, start=1):
            if token_id in stop_token_ids:
                request.stop_reason = token_id
                return count, FinishReason.STOP
            if token_id in request.eos_token_ids:
                return count, FinishReason.STOP
            stop = text.push(token_id)
            if stop is not None:
                request.stop_reason = stop
                return count, FinishReason.STOP
            if request.num_tokens + count >= request.max_total_tokens:
                return count, FinishReason.LENGTH
        return len(token_ids), None

    def end(self, request_id: str, *, was_cut: bool) -> str:
        """Stop following; the whole text. After a stop string nothing held back belongs to it."""
        text = self._texts.pop(request_id)
        return text.text if was_cut else text.finish()
