"""Text of running requests, and the end of each output: eos, stop ids, stop strings, token by token.

`token_ids` ends with the token that completed the stop; the stop's own text is returned only if asked for. The
scheduler drops the tokens that the same step or a later one produced after it.

    text:  | passed to the caller .. | may begin a stop string | bytes of an unfinished character (TextStream) |
"""

from outrider.core.outputs import FinishReason
from outrider.core.request import Request
from outrider.engine.tokenizer import TextStream, Tokenizer
from outrider.scheduler.request_state import RequestState
from outrider.scheduler.text_rules import Stop


class OutputText:
    """The text of one request so far. `echo`: text in front of it, which is not searched for stops."""

    def __init__(self, request: Request, stream: TextStream | None, *, echo: str = "") -> None:
        self._stream = stream
        self._stops = request.params.stop_strings
        self._keeps_stop = request.params.include_stop_str_in_output
        self._min_tokens = request.params.min_tokens
        self._num_tokens = 0
        self._stop_ids = frozenset(request.stop_token_ids)
        self._num_given = 0
        self._echo = echo
        self._is_cut = False
        self.text = ""

    def can_stop_in(self, token_ids: tuple[int, ...]) -> bool:
        """False if none of `token_ids` can end the output, whatever their text."""
        return bool(self._stops) or not self._stop_ids.isdisjoint(token_ids)

    def extend(self, token_ids: tuple[int, ...]) -> None:
        """Append the text of tokens that cannot end the output."""
        self._num_tokens += len(token_ids)
        if self._stream is not None:
            self.text += self._stream.extend(token_ids)

    def push(self, token_id: int) -> str | None:
        """Append one token's text. Returns the stop string that it completed, if any (the text then ends there)."""
        self._num_tokens += 1
        if self._stream is None:
            return None
        return self._append(self._stream.push(token_id))

    def push_stop_token(self, token_id: int) -> None:
        """Append the token that ends the output; its text is included only if the caller asked for it."""
        if self._keeps_stop and self._stream is not None:
            self.text += self._stream.push(token_id)

    def _append(self, piece: str) -> str | None:
        """Append `piece`. Returns the earliest stop string that ends in it, the longest if several start there."""
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
        self.text = self.text[: found[0] + (len(found[2]) if self._keeps_stop else 0)]
        self._is_cut = True
        return found[2]

    def take(self) -> str:
        """Take the new text that can be passed to the caller: it excludes text that a stop string may still cut off."""
        return self._take(len(self.text) - self._num_held())

    def finish(self) -> str:
        """Take the rest of the text, held-back bytes included unless a stop string ended the text."""
        if self._stream is not None and not self._is_cut:
            self._append(self._stream.flush())
        return self._take(len(self.text))

    @property
    def whole(self) -> str:
        """Echo and text."""
        return self._echo + self.text

    def _take(self, end: int) -> str:
        end += len(self._echo)
        piece = self.whole[self._num_given : end]
        self._num_given = max(self._num_given, end)
        return piece

    def _num_held(self) -> int:
        """Characters at the end that are the beginning of a stop string."""
        held = 0
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(self.text)), held, -1):
                if self.text.endswith(stop[:size]):
                    held = size
                    break
        return held


class OutputTexts:
    """The text of every running request; the scheduler asks it where an output ends (`StopRule`)."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._texts: dict[str, OutputText] = {}

    def begin(self, request: Request) -> None:
        """Start following a request."""
        stream, echo, tokenizer, params = None, "", self._tokenizer, request.params
        if tokenizer is not None and params.detokenize:
            stream = tokenizer.stream(skip_special_tokens=params.skip_special_tokens)
            if params.echo:
                skips = params.skip_special_tokens
                echo = request.prompt or tokenizer.decode(request.prompt_token_ids, skip_special_tokens=skips)
        self._texts[request.request_id] = OutputText(request, stream, echo=echo)

    def check(self, state: RequestState, token_ids: tuple[int, ...]) -> tuple[int, Stop | None]:
        """The number of new `token_ids` that belong to the output, and its end if one of them ended it."""
        text = self._texts[state.request_id]
        num_tokens_left = state.max_total_tokens - len(state.token_ids)
        if len(token_ids) < num_tokens_left and not text.can_stop_in(token_ids):
            text.extend(token_ids)
            return len(token_ids), None
        stop_token_ids = state.params.stop_token_ids or ()
        for count, token_id in enumerate(token_ids, start=1):
            if token_id in stop_token_ids:
                text.push_stop_token(token_id)
                return count, Stop(FinishReason.STOP, token_id)
            if token_id in state.request.eos_token_ids:
                text.push_stop_token(token_id)
                return count, Stop(FinishReason.STOP)
            stop_string = text.push(token_id)
            if stop_string is not None:
                return count, Stop(FinishReason.STOP, stop_string)
            if count >= num_tokens_left:
                return count, Stop(FinishReason.LENGTH)
        return len(token_ids), None

    def take(self, request_id: str) -> str:
        """Take the new text of a running request that can be passed to its caller."""
        return self._texts[request_id].take()

    def forget(self, request_id: str) -> None:
        """Stop following a request that could not be started."""
        self._texts.pop(request_id, None)

    def end(self, request_id: str) -> tuple[str, str]:
        """Stop following a request. Returns the last piece of its text, and the whole text."""
        text = self._texts.pop(request_id)
        return text.finish(), text.whole
