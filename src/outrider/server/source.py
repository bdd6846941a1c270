"""The text of an answer as a reader takes it, piece by piece, and the events that the reader makes of it.

A reader is a generator: where it needs text that the model has not written yet, it yields. Text is either passed on at
once, or taken in an attempt to read a call. All that an attempt took is kept until it is known to be a call; otherwise
it becomes content, unchanged. Each character is looked at a bounded number of times.

    text:  | passed on ... | taken by the attempt | not taken: never longer than the longest mark |
"""

import re
from collections.abc import Callable, Collection, Generator
from functools import lru_cache
from typing import TypeVar

from outrider.server.answer_events import Arguments, CallBegin, CallBroken, CallEnd, Event, Reasoning, Text, joined

Result = TypeVar("Result")
Steps = Generator[None, None, Result]
"""Steps of a reader: yields where it waits for more text."""
SPACE = re.compile(r"[ \t\r\n]+")


class UnreadableError(Exception):
    """The text is not in the reader's format."""


class AnswerOverError(Exception):
    """The answer ended while the reader needed more text."""


class _Attempt:
    """Text that may be a call. Its events are held until name and first value are known, so that most text that is not
    a call becomes content even in a stream."""

    def __init__(self, events: list[Event]) -> None:
        self.call: CallBegin | None = None
        self.is_capturing = False
        self.is_confirmed = False
        self.is_complete = False
        self._events = events
        self._is_text = False
        self._has_begun = False
        self._raw: list[str] = []
        self._arguments: list[str] = []

    @property
    def raw(self) -> str:
        """All text of the attempt."""
        return "".join(self._raw)

    def add(self, text: str) -> None:
        if self._is_text:
            self._events.append(Text(text))
            return
        self._raw.append(text)
        if self.is_capturing:
            self.write(text)

    def write(self, text: str) -> None:
        if not self._is_text:
            self._arguments.append(text)
            self.pass_on()

    def pass_on(self) -> None:
        if self.call is None or not self.is_confirmed or self._is_text:
            return
        if not self._has_begun:
            self._has_begun = True
            self._events.append(self.call)
        self._events += [Arguments(text) for text in self._arguments]
        self._arguments = []

    def give_up(self) -> None:
        if self._is_text:
            return
        self._events.append(CallBroken(self.raw, is_cut=False) if self._has_begun else Text(self.raw))
        self._is_text = True

    def end(self) -> bool:
        if not (self._has_begun and self.is_complete):
            self.give_up()
        if self._is_text:
            return False
        self._events.append(CallEnd())
        return True

    def cut(self) -> None:
        if self._has_begun and not self.is_complete and not self._is_text:
            self._events.append(CallBroken(self.raw, is_cut=True))
        else:
            self.end()


class Source:
    """Text in, events out. Methods that return Steps are called with `yield from`."""

    def __init__(self, names: Collection[str], new_id: Callable[[], str]) -> None:
        """`names` are those of the functions that the request offers."""
        self.is_over = False
        """True once the answer is complete."""
        self.num_taken = 0
        """Characters that were taken so far."""
        self._names = names
        self._new_id = new_id
        self._text = ""
        self._at = 0
        self._events: list[Event] = []
        self._attempt: _Attempt | None = None

    # feeding

    @property
    def num_left(self) -> int:
        """Characters that are not taken yet."""
        return len(self._text) - self._at

    def add(self, text: str) -> None:
        """Adds text that the model wrote."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def events(self) -> list[Event]:
        """Takes the events made so far."""
        found = joined(self._events)
        self._events.clear()  # an open attempt adds to the same list
        return found

    # taking text

    def more(self) -> Steps[None]:
        """Waits for more text. Raises AnswerOverError if there is none."""
        if self.is_over:
            raise AnswerOverError
        yield

    def peek(self) -> Steps[str]:
        """The next character, which is not taken."""
        while self._at >= len(self._text):
            yield from self.more()
        return self._text[self._at]

    def take(self, size: int) -> str:
        """Takes `size` characters, which are there."""
        assert size <= self.num_left, f"{size} characters of {self.num_left}"
        taken = self._text[self._at : self._at + size]
        self._at += size
        self.num_taken += size
        if self._attempt is not None:
            self._attempt.add(taken)
        return taken

    def take_run(self, run: re.Pattern[str]) -> Steps[str]:
        """Takes all characters that `run` matches, a repeated set of characters; "" if there are none."""
        taken: list[str] = []
        while True:
            match = run.match(self._text, self._at)
            if match is not None:
                taken.append(self.take(match.end() - self._at))
            if self._at < len(self._text) or self.is_over:
                return "".join(taken)
            yield

    def take_some(self, run: re.Pattern[str]) -> Steps[str]:
        """Takes what is there of a run, at least one character; "" if the next one does not belong to it."""
        yield from self.peek()
        match = run.match(self._text, self._at)
        return self.take(match.end() - self._at) if match is not None else ""

    def take_token(self, token: re.Pattern[str], beginning: re.Pattern[str]) -> Steps[str]:
        """Takes what `token` matches. `beginning` matches what may become one. Raises UnreadableError."""
        while True:
            match = token.match(self._text, self._at)
            if match is not None:
                return self.take(match.end() - self._at)
            if self.num_left and not beginning.fullmatch(self._text, self._at):
                raise UnreadableError
            yield from self.more()

    def skip_space(self) -> Steps[None]:
        """Takes white space."""
        yield from self.take_run(SPACE)

    def option(self, *marks: str) -> Steps[str | None]:
        """Takes one of `marks`, none of which begins another, if the text continues with it."""
        while True:
            rest = self._text[self._at : self._at + max(map(len, marks))]
            for mark in marks:
                if rest.startswith(mark):
                    return self.take(len(mark))
            if self.is_over or not any(mark.startswith(rest) for mark in marks):
                return None
            yield

    def expect(self, *marks: str) -> Steps[str]:
        """Takes one of `marks`, none of which begins another. Raises UnreadableError for any other text."""
        found = yield from self.option(*marks)
        if found is None:
            if self.is_over and any(mark.startswith(self._text[self._at :]) for mark in marks):
                raise AnswerOverError
            raise UnreadableError
        return found

    def next_is(self, *marks: str) -> Steps[bool]:
        """True if the text continues with one of `marks`, which is not taken."""
        while True:
            rest = self._text[self._at : self._at + max(map(len, marks))]
            if any(rest.startswith(mark) for mark in marks):
                return True
            if not any(mark.startswith(rest) for mark in marks):
                return False
            yield from self.more()

    def pass_until(self, *marks: str, kind: type[Text] | type[Reasoning] = Text, trimmed: int = 0) -> Steps[str]:
        """Passes the text on up to the first of `marks`, takes the mark in a new attempt, and returns it.

        Drops up to `trimmed` newlines in front of the mark."""
        assert self._attempt is None, "an attempt is open"
        while True:
            size, newlines, mark = self._before(marks, trimmed)
            self._events.append(kind(self.take(size)))
            if mark is not None:
                self.take(newlines)
                self.begin()
                return self.take(len(mark))
            yield from self.more()

    def take_part(self, mark: str, *, trimmed: int = 0) -> Steps[tuple[str, bool]]:
        """Takes text in front of `mark`: what is there, and True once the mark comes next, after up to `trimmed`
        newlines; these and the mark are not taken."""
        while True:
            size, _, found = self._before((mark,), trimmed, holds=True)
            if size or found is not None:
                return self.take(size), found is not None
            yield from self.more()

    def pass_rest(self) -> Steps[None]:
        """Passes everything on as content until the answer ends."""
        while True:
            self.pass_on(self.num_left)
            yield from self.more()

    def pass_on(self, size: int) -> None:
        """Passes the next `size` characters on as content."""
        assert self._attempt is None, "an attempt is open"
        self._events.append(Text(self.take(size)))

    def _before(self, marks: tuple[str, ...], trimmed: int, *, holds: bool = False) -> tuple[int, int, str | None]:
        """Number of characters before the first mark and its newlines, up to `trimmed` of them, and the mark; without
        a mark, the number of those that can belong to neither. `holds`: also where the answer is over."""
        match = _any_of(marks).search(self._text, self._at)
        if match is None and self.is_over and not holds:
            return self.num_left, 0, None
        end = match.start() if match is not None else len(self._text) - self._num_held(marks)
        newlines = 0
        while newlines < min(trimmed, end - self._at) and self._text[end - newlines - 1] == "\n":
            newlines += 1
        return end - newlines - self._at, newlines, match.group() if match is not None else None

    def _num_held(self, marks: tuple[str, ...]) -> int:
        """Characters at the end that may be the beginning of a mark."""
        longest = max(map(len, marks)) - 1
        for size in range(min(longest, self.num_left), 0, -1):
            end = self._text[len(self._text) - size :]
            if any(mark.startswith(end) for mark in marks):
                return size
        return 0

    # attempts

    def begin(self) -> None:
        """Begins an attempt: text is kept from here on."""
        assert self._attempt is None, "an attempt is open"
        self._attempt = _Attempt(self._events)

    def drop(self) -> None:
        """Ends the attempt; its text was marks only, and is dropped."""
        self._attempt = None

    def end_reasoning(self) -> None:
        """Ends the attempt; its text, without newlines in front, is reasoning."""
        assert self._attempt is not None, "no attempt is open"
        self._events.append(Reasoning(self._attempt.raw.lstrip("\n")))
        self._attempt = None

    def give_up(self) -> None:
        """The attempt is not a call: its text becomes content, and so does all that it still takes."""
        assert self._attempt is not None, "no attempt is open"
        self._attempt.give_up()

    def fail(self) -> None:
        """Ends the attempt, if any; its text becomes content."""
        if self._attempt is not None:
            self._attempt.give_up()
            self._attempt = None

    def open_call(self, name: str, *, call_id: str | None = None) -> bool:
        """Names the call of the attempt. Gives up and returns False if the request offers no function of this name."""
        assert self._attempt is not None, "no attempt is open"
        if name not in self._names:
            self._attempt.give_up()
            return False
        self._attempt.call = CallBegin(call_id or self._new_id(), name)
        self._attempt.pass_on()
        return True

    def open_arguments(self) -> None:
        """All text that is taken from here on is the call's arguments."""
        assert self._attempt is not None, "no attempt is open"
        self._attempt.is_capturing = True

    def confirm(self) -> None:
        """The arguments can be passed on, because their first value is in the format."""
        if self._attempt is not None:
            self._attempt.is_confirmed = True
            self._attempt.pass_on()

    def write_arguments(self, text: str) -> None:
        """Adds to the arguments what the model did not write literally."""
        assert self._attempt is not None, "no attempt is open"
        self._attempt.write(text)

    def close_arguments(self) -> None:
        """The arguments are complete."""
        assert self._attempt is not None, "no attempt is open"
        self._attempt.is_capturing = False
        self._attempt.is_complete = self._attempt.is_confirmed = True
        self._attempt.pass_on()

    def end_call(self) -> bool:
        """Ends the attempt. True if it was a call; otherwise its text becomes content."""
        assert self._attempt is not None, "no attempt is open"
        is_call = self._attempt.end()
        self._attempt = None
        return is_call

    def end_answer(self) -> None:
        """Ends what is open: a call whose arguments are complete is a call, though its end mark is missing."""
        if self._attempt is None:
            self.pass_on(self.num_left)
        else:
            self.take(self.num_left)
            self._attempt.cut()
            self._attempt = None


@lru_cache(maxsize=256)
def _any_of(marks: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, marks)))
