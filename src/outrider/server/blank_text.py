"""Blank text around the other parts of an answer: the newlines between reasoning, calls and text.

Endpoints whose answers are lists of parts leave it out, so an answer of calls alone has no text. Knows no endpoint's
form.
"""

from outrider.server.answer_events import CallBegin, CallBroken, Event, Reasoning, Text


class BlankText:
    """Filters the events of one answer."""

    def __init__(self, *, is_plain: bool) -> None:
        """`is_plain`: all of the answer is text, and none of it is left out."""
        self._blank = ""
        """It is text if text follows, or if the answer has nothing else."""
        self._is_in_text = is_plain
        self._is_empty = True

    def without(self, events: list[Event], *, is_last: bool) -> list[Event]:
        """The events without blank text between parts; some of it may come later. `is_last`: the answer ends here."""
        found: list[Event] = []
        for event in events:
            if isinstance(event, Text):
                text = self._blank + event.text
                if not self._is_in_text and not text.strip():
                    self._blank = text
                    continue
                self._blank = ""
                self._is_in_text, self._is_empty = True, False
                found.append(Text(text))
                continue
            if isinstance(event, CallBegin | Reasoning):
                self._blank = ""
                self._is_in_text = self._is_empty = False
            elif isinstance(event, CallBroken):  # its text continues
                self._is_in_text = True
            found.append(event)
        if is_last and self._is_empty and self._blank:
            found.append(Text(self._blank))
        return found
