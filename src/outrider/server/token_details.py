"""What a choice says of its tokens beside their text, where the caller asked: ids, where each came from, its own text.

Knows the two request fields for it; nothing of streams and of kinds of answers.
"""

from typing import Any

from outrider.engine.tokenizer import TextStream, Tokenizer
from outrider.server.fields import SamplingFields


class TokenDetails:
    """For the choices of one answer, each told in order, in one piece or in many."""

    def __init__(self, body: SamplingFields, tokenizer: Tokenizer) -> None:
        self._body = body
        self._tokenizer = tokenizer
        self._texts: dict[int, TextStream] = {}  # by index of the choice

    @property
    def is_asked_for(self) -> bool:
        """True where choices carry any of it."""
        return bool(self._body.return_token_ids or self._body.return_token_origins)

    def add(self, choice: dict[str, Any], token_ids: list[int], is_draft: list[bool]) -> None:
        """Put what was asked for into `choice`, whose "index" and "finish_reason" are set."""
        if self._body.return_token_ids:
            choice["token_ids"] = token_ids
        if self._body.return_token_origins:
            choice["origins"] = ["draft" if was else "target" for was in is_draft]
            choice["token_texts"] = self._own_texts(choice["index"], token_ids, choice["finish_reason"] is not None)

    def _own_texts(self, index: int, token_ids: list[int], is_over: bool) -> list[str]:
        """What each token adds to the text, stop strings included; bytes of a character count where it is complete."""
        stream = self._texts.get(index)
        if stream is None:
            skips = self._body.skip_special_tokens
            stream = self._tokenizer.stream(skip_special_tokens=True if skips is None else skips)
            self._texts[index] = stream
        texts = [stream.push(token_id) for token_id in token_ids]
        if is_over and texts:
            texts[-1] += stream.flush()
        return texts
