"""What a choice says of its tokens, where a caller asks: ids, where each came from, what each adds to the text."""

from collections.abc import Sequence
from typing import Any

from outrider.engine.tokenizer import TextStream, Tokenizer
from outrider.server.fields import SamplingFields


class TokenDetails:
    """For all choices of one answer, piece by piece or whole."""

    def __init__(self, tokenizer: Tokenizer, body: SamplingFields) -> None:
        self._tokenizer = tokenizer
        self._wants_ids = body.return_token_ids or False
        self._wants_origins = body.return_token_origins or False
        self._skips = body.skip_special_tokens is not False
        self._streams: dict[int, TextStream] = {}

    @property
    def is_asked_for(self) -> bool:
        """True where choices carry any of it."""
        return self._wants_ids or self._wants_origins

    def add(self, choice: dict[str, Any], token_ids: list[int], is_draft: Sequence[bool]) -> None:
        """Write them into a choice; `token_texts` has "" where a token ends inside a character."""
        if self._wants_ids:
            choice["token_ids"] = token_ids
        if self._wants_origins:
            choice["origins"] = ["draft" if was else "target" for was in is_draft]
            stream = self._streams.get(choice["index"])
            if stream is None:
                stream = self._tokenizer.stream(skip_special_tokens=self._skips)
                self._streams[choice["index"]] = stream
            choice["token_texts"] = [stream.push(token_id) for token_id in token_ids]
