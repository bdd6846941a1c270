"""JSON in the text of an answer: reads one value and finds its end, without changing it or building it.

Strict (RFC 8259): NaN and Infinity are not JSON, numbers of any length are. Nesting costs no recursion. Keys may
repeat.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from outrider.server.source import AnswerOverError, Source, Steps, UnreadableError

_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_DIGITS = re.compile(r"[0-9]+")
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_BEGINS_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")
_ENDS = {"{": "}", "[": "]"}
_WORDS = {"t": "true", "f": "false", "n": "null"}


def _ignore() -> None:
    pass


def value(source: Source, on_begun: Callable[[], None] = _ignore) -> Steps[str]:
    """Takes one value and no white space around it. Returns its kind: object, array, string, number, boolean or null.

    `on_begun` is called where a string begins, and after any other value inside of the whole: before the first of
    these, a short text that is not JSON has shown it. Raises UnreadableError."""
    open_brackets: list[str] = []
    kind = ""
    while True:
        first = yield from source.peek()
        is_closed = True
        if first in _ENDS:
            kind = kind or ("object" if first == "{" else "array")
            source.take(1)
            yield from source.skip_space()
            if (yield from source.peek()) == _ENDS[first]:
                source.take(1)
            else:
                open_brackets.append(first)
                if first == "{":
                    yield from _key(source)
                is_closed = False
        else:
            found = yield from _scalar(source, first, on_begun)
            kind = kind or found
        while is_closed:
            if not open_brackets:
                return kind
            yield from source.skip_space()
            character = yield from source.peek()
            if character == _ENDS[open_brackets[-1]]:
                source.take(1)
                open_brackets.pop()
                on_begun()
            elif character == ",":
                source.take(1)
                on_begun()
                yield from source.skip_space()
                if open_brackets[-1] == "{":
                    yield from _key(source)
                is_closed = False
            else:
                raise UnreadableError


def string(source: Source, on_begun: Callable[[], None] = _ignore) -> Steps[str]:
    """Takes a string. Returns it as it is written, with quotes. Raises UnreadableError."""
    taken = [(yield from source.expect('"'))]
    on_begun()
    while True:
        taken.append((yield from source.take_run(_PLAIN)))
        if (yield from source.peek()) == '"':
            taken.append(source.take(1))
            return "".join(taken)
        taken.append((yield from source.take_token(_ESCAPE, _BEGINS_ESCAPE)))


def _key(source: Source) -> Steps[None]:
    yield from string(source)
    yield from source.skip_space()
    yield from source.expect(":")
    yield from source.skip_space()


def _scalar(source: Source, first: str, on_begun: Callable[[], None]) -> Steps[str]:
    if first == '"':
        yield from string(source, on_begun)
        return "string"
    if first in _WORDS:
        word = yield from source.expect(_WORDS[first])
        return "null" if word == "null" else "boolean"
    yield from _number(source)
    return "number"


def _number(source: Source) -> Steps[None]:
    yield from source.option("-")
    if (yield from source.option("0")) is None:
        yield from _digits(source)
    if (yield from source.option(".")) is not None:
        yield from _digits(source)
    if (yield from source.option("e", "E")) is not None:
        yield from source.option("+", "-")
        yield from _digits(source)


def _digits(source: Source) -> Steps[None]:
    first = yield from source.peek()
    if first not in "0123456789":
        raise UnreadableError
    yield from source.take_run(_DIGITS)


def kind_of(text: str) -> str | None:
    """The kind of the JSON value that `text` is, white space around it aside; None if it is not JSON."""
    source = Source((), str)
    source.add(text.strip(" \t\r\n"))
    source.is_over = True
    steps = value(source)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return str(end.value) if not source.num_left else None
    except (UnreadableError, AnswerOverError):
        return None


def quoted(text: str) -> str:
    """A JSON string; half of a surrogate pair is written as an escape, because UTF-8 cannot encode it."""
    return json.dumps(text, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def arguments(source: Source) -> Steps[None]:
    """Takes a JSON object as the arguments of the call."""
    if (yield from source.peek()) != "{":
        raise UnreadableError
    source.open_arguments()
    yield from value(source, source.confirm)
    source.close_arguments()


def call(source: Source, *, arguments_keys: tuple[str, ...], id_pattern: re.Pattern[str] | None = None) -> Steps[bool]:
    """Takes an object {"name": …, "arguments": …}, whose arguments have one of `arguments_keys`. Its attempt is open.

    "type": "function" may be among the members, and "id", which is used if `id_pattern` matches it. Returns False,
    after the whole object, if it is JSON of another form, or names a function that is not offered: it is data then.
    """
    name: str | None = None
    call_id: str | None = None
    has_arguments = False
    is_call = True
    members: set[str] = set()
    yield from source.expect("{")
    yield from source.skip_space()
    is_empty = (yield from source.option("}")) is not None
    while not is_empty:
        key = json.loads((yield from string(source)))
        yield from source.skip_space()
        yield from source.expect(":")
        yield from source.skip_space()
        first = yield from source.peek()
        is_known = key not in members and is_call
        members.add(key)
        if is_known and key == "name" and first == '"':
            name = json.loads((yield from string(source)))
            # the id may follow the name: then it is too late for streams, and a new one is made
            is_call = source.open_call(str(name), call_id=call_id)
        elif is_known and key in arguments_keys and first == "{" and not has_arguments:
            has_arguments = True
            yield from arguments(source)
        elif is_known and key in ("type", "id") and first == '"':
            text: Any = json.loads((yield from string(source)))
            if key == "id" and id_pattern is not None and id_pattern.fullmatch(text):
                call_id = text
            elif key == "type" and text != "function":
                is_call = False
        else:
            is_call = False
            source.give_up()
            yield from value(source)
        if not is_call:
            source.give_up()
        yield from source.skip_space()
        if (yield from source.expect(",", "}")) == "}":
            break
        yield from source.skip_space()
    if not (is_call and name is not None and has_arguments):
        source.give_up()
        return False
    return True
