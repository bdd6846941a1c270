"""Reasoning between <think> and </think>, before the answer. The prompt may contain the first mark already."""

import re
from typing import ClassVar

from outrider.server.answer_events import Reasoning
from outrider.server.reader import NO_PROMPT, PromptEnd, Reader, Tools
from outrider.server.source import Source, Steps

_BEGIN, _END = "<think>", "</think>"
_NEWLINES = re.compile(r"\n+")
_MAX_NEWLINES = 2
"""Newlines around the marks that belong to the format."""


class ThinkReader(Reader):
    """Reads the reasoning at the beginning of an answer; everything after it is content."""

    marks = (_BEGIN, _END)
    reasons_unless_closed: ClassVar[bool] = False
    """True for models that reason without the first mark, even if it is not in the prompt either."""

    def __init__(self, tools: Tools, prompt_end: PromptEnd = NO_PROMPT) -> None:
        super().__init__(tools, prompt_end)
        self._is_over = False

    def read(self, source: Source) -> Steps[None]:
        """Reads the reasoning if there is any, then the rest."""
        if self._is_over:
            yield from source.pass_rest()
        self._is_over = True
        source.begin()
        yield from source.take_run(_NEWLINES)
        is_marked = (yield from source.option(_BEGIN)) is not None
        if not is_marked and not self._is_open():
            return  # what was read is content
        if not is_marked and self.prompt_end.is_constrained:
            yield from _held_reasoning(source)
        else:
            source.drop()
            yield from source.take_run(_NEWLINES)
            yield from source.pass_until(_END, kind=Reasoning, trimmed=_MAX_NEWLINES)
        source.drop()
        yield from source.take_run(_NEWLINES)

    def _is_open(self) -> bool:
        """True if the answer begins with reasoning although its text does not say so."""
        end = self.prompt_end
        if end.is_json:
            return False
        text = end.text.rstrip()
        if end.is_continued:
            return text.rfind(_BEGIN) > text.rfind(_END)
        return text.endswith(_BEGIN) or (self.reasons_unless_closed and not text.endswith(_END))


def _held_reasoning(source: Source) -> Steps[None]:
    """Reads up to the last mark, in an attempt, and begins another with the mark. Without the mark all is content: the
    prompt may have opened the reasoning, and a grammar forced the answer at once."""
    is_at_end = False
    while not is_at_end:
        _, is_at_end = yield from source.take_part(_END, trimmed=_MAX_NEWLINES)
    source.end_reasoning()
    source.begin()
    yield from source.take_run(_NEWLINES)
    yield from source.expect(_END)
