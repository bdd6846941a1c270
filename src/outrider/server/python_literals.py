"""Literals of Python in the text of an answer, written as JSON while they are read: the arguments of pythonic calls.

Strings, numbers, True, False, None, lists, and dicts with strings as keys. Nesting costs no recursion. Numbers
that JSON has are passed on as they are written.
"""

import re
import unicodedata

from outrider.server import json_text
from outrider.server.answer_events import Arguments
from outrider.server.source import AnswerOverError, Source, Steps, UnreadableError

_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_ENDS = {"[": "]", "{": "}"}
_WORD = re.compile(r"[a-zA-Z]+")
_NUMBER = re.compile(r"[0-9a-zA-Z_.+-]+")
_PLAIN = {quote: re.compile(rf"[^{quote}\\\n]+") for quote in "'\""}
_ESCAPE = re.compile(
    r"\\(?:u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|N\{[A-Za-z0-9 -]{1,100}\}|[0-7]{3}|[0-7]{1,2}(?=[^0-7])"
    r"|[^uUxN0-7])",
    re.DOTALL,
)
_BEGINS_ESCAPE = re.compile(
    r"\\(?:u[0-9a-fA-F]{0,3}|U[0-9a-fA-F]{0,7}|x[0-9a-fA-F]?|N(?:\{[A-Za-z0-9 -]{0,100})?|[0-7]{0,2})"
)
_CHARACTERS = {"\\": "\\", "'": "'", '"': '"', "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"} | {
    "v": "\v",
    "\n": "",
}


def value(source: Source) -> Steps[None]:
    """Takes one literal and adds it to the arguments. Raises UnreadableError for any other text."""
    open_brackets: list[str] = []
    while True:
        first = yield from source.peek()
        is_closed = True
        if first in _ENDS:
            source.take(1)
            source.write_arguments(first)
            yield from source.skip_space()
            open_brackets.append(first)
            is_closed = yield from _begins_empty(source, open_brackets)
        else:
            yield from _scalar(source, first)
        while is_closed:
            if not open_brackets:
                return
            yield from source.skip_space()
            if (yield from source.option(",")) is not None:
                yield from source.skip_space()
                if (yield from source.peek()) != _ENDS[open_brackets[-1]]:  # Python allows a last comma
                    source.write_arguments(", ")
                    is_closed = yield from _begins_empty(source, open_brackets)
                    continue
            source.write_arguments((yield from source.expect(_ENDS[open_brackets.pop()])))


def as_json(text: str) -> str | None:
    """JSON of a list or a dict as Python writes it; None for any other text."""
    source = Source({""}, str)
    source.add(text)
    source.is_over = True
    source.begin()
    source.open_call("")
    source.confirm()
    steps = value(source)
    try:
        while True:
            next(steps)
    except StopIteration:
        pass
    except (UnreadableError, AnswerOverError, ValueError, KeyError):
        return None
    return None if source.num_left else "".join(e.text for e in source.events() if isinstance(e, Arguments))


def _begins_empty(source: Source, open_brackets: list[str]) -> Steps[bool]:
    """Takes the key of a dict, or closes an empty bracket and returns True."""
    bracket = open_brackets[-1]
    if (yield from source.peek()) == _ENDS[bracket]:
        source.write_arguments(source.take(1))
        open_brackets.pop()
        return True
    if bracket == "{":
        yield from _string(source)
        yield from source.skip_space()
        yield from source.expect(":")
        source.write_arguments(": ")
        yield from source.skip_space()
    return False


def _scalar(source: Source, first: str) -> Steps[None]:
    if first in "'\"":
        yield from _string(source)
    elif first.isalpha():
        word = yield from source.take_run(_WORD)
        if word not in _WORDS:
            raise UnreadableError
        source.write_arguments(_WORDS[word])
    else:
        number = yield from source.take_run(_NUMBER)
        yield from source.peek()  # a number that ends with the answer is cut
        source.write_arguments(number if json_text.kind_of(number) == "number" else _as_json(number))
    source.confirm()


def _as_json(number: str) -> str:
    """A number that Python has and JSON does not, such as 1_000 or 0x1F. Raises ValueError."""
    try:
        text = str(int(number, 0))
    except ValueError:
        text = repr(float(number))
    if json_text.kind_of(text) != "number":  # infinite
        raise UnreadableError
    return text


def _string(source: Source) -> Steps[None]:
    quote = yield from source.expect("'", '"')
    source.write_arguments('"')
    source.confirm()
    while True:
        plain = yield from source.take_some(_PLAIN[quote])
        source.write_arguments(json_text.quoted(plain)[1:-1])
        if plain:
            continue
        if (yield from source.option(quote)) is not None:
            source.write_arguments('"')
            return
        escape = yield from source.take_token(_ESCAPE, _BEGINS_ESCAPE)
        source.write_arguments(json_text.quoted(_character(escape))[1:-1])


def _character(escape: str) -> str:
    """The text that an escape is for; an unknown one is for itself."""
    kind = escape[1]
    if kind in "01234567":
        return chr(int(escape[1:], 8))
    if kind in "uUx":
        return chr(int(escape[2:], 16))
    if kind == "N":
        return unicodedata.lookup(escape[3:-1])
    return _CHARACTERS.get(kind, escape)
