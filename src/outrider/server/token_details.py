"""Optional details of a choice's tokens: their ids, their origin (draft or target), and the text of each.

Knows the two request fields that ask for them; knows neither streams nor kinds of answers.
"""

from typing import Any

from outrider.engine.tokenizer import TextStream, Tokenizer
from outrider.server.fields import SamplingFields


class TokenDetails:
    """Adds token details to the choices of one answer, whole or piece by piece."""

    def __init__(self, body: SamplingFields, tokenizer: Tokenizer, *, skip_special_tokens: bool) -> None:
        """`skip_special_tokens`: as in the text of the answer, which may keep them though the body does not ask."""
        self._body = body
        self._skips = skip_special_tokens
        self._tokenizer = tokenizer
        self._texts: dict[int, TextStream] = {}  # by index of the choice

    @property
    def is_asked_for(self) -> bool:
        """True if the request asked for any detail."""
        return bool(self._body.return_token_ids or self._body.return_token_origins)

    def add(self, choice: dict[str, Any], token_ids: list[int], is_draft: list[bool]) -> None:
        """Adds the requested details to `choice`, whose "index" and "finish_reason" are set."""
        if self._body.return_token_ids:
            choice["token_ids"] = token_ids
        if self._body.return_token_origins:
            choice["origins"] = ["draft" if was else "target" for was in is_draft]
            choice["token_texts"] = self._own_texts(choice["index"], token_ids, choice["finish_reason"] is not None)

    def _own_texts(self, index: int, token_ids: list[int], is_over: bool) -> list[str]:
        """The text that each token adds, stop strings included. A character of several tokens counts for the last."""
        stream = self._texts.get(index)
        if stream is None:
            stream = self._tokenizer.stream(skip_special_tokens=self._skips)
            self._texts[index] = stream
        texts = [stream.push(token_id) for token_id in token_ids]
        if is_over and texts:
            texts[-1] += stream.flush()
        return texts
