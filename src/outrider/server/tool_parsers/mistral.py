"""Tool calls of Mistral's models: [TOOL_CALLS][{"name": …, "arguments": {…}}, …], or later [TOOL_CALLS]name{…}.

The later form may have [CALL_ID] and [ARGS] after the name. Its templates accept ids of 9 letters or digits only.
"""

import re
import secrets
import string

from outrider.server import json_text
from outrider.server.reader import Reader
from outrider.server.source import Source, Steps

_MARK, _ID, _ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_NAME = re.compile(r"[a-zA-Z0-9_.-]+")
_CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_WORD = re.compile(r"[a-zA-Z0-9_-]+")


class Parser(Reader):
    """Reads both forms; calls may follow each other."""

    marks = (_MARK, _ID, _ARGUMENTS)

    @staticmethod
    def new_id() -> str:
        """9 letters or digits."""
        return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))

    def read(self, source: Source) -> Steps[None]:
        """Reads text up to the mark, and the calls after it."""
        yield from source.pass_until(_MARK)
        yield from source.skip_space()
        first = yield from source.peek()
        if first == "[":
            yield from _list(source)
        elif first == "{":
            yield from _object(source)
        else:
            yield from _named(source)


def _list(source: Source) -> Steps[None]:
    yield from source.expect("[")
    yield from source.skip_space()
    while (yield from _object(source)):
        source.begin()
        yield from source.skip_space()
        if (yield from source.expect(",", "]")) == "]":
            source.drop()
            return
        yield from source.skip_space()


def _object(source: Source) -> Steps[bool]:
    yield from json_text.call(source, arguments_keys=("arguments",), id_pattern=_CALL_ID)
    return source.end_call()


def _named(source: Source) -> Steps[None]:
    name = yield from source.take_run(_NAME)
    call_id = None
    if (yield from source.option(_ID)) is not None:
        written = yield from source.take_run(_WORD)
        call_id = written if _CALL_ID.fullmatch(written) else None
    yield from source.option(_ARGUMENTS)
    yield from source.skip_space()
    source.open_call(name, call_id=call_id)
    yield from json_text.arguments(source)
    source.end_call()
