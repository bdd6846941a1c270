"""The two forms of calls that a grammar forces: the arguments of one named function, and a list of calls.

`call_schema.py` has the schema of the list. These forms are the server's own, whatever the model's format is.
"""

from collections.abc import Callable

from outrider.server import json_text
from outrider.server.reader import Reader, Tools
from outrider.server.source import Source, Steps


class NamedCall(Reader):
    """Reads an answer that is the arguments of one function."""

    def __init__(self, name: str, new_id: Callable[[], str]) -> None:
        super().__init__({name: {}}, new_id=new_id)
        self._name = name
        self._is_over = False

    def read(self, source: Source) -> Steps[None]:
        """Passes everything on as arguments; they are cut if the answer was."""
        if self._is_over:
            yield from source.pass_rest()
        self._is_over = True
        source.begin()
        source.open_call(self._name)
        source.open_arguments()
        source.confirm()
        while not source.is_over:
            source.take(source.num_left)
            yield
        source.close_arguments()
        source.end_call()


class CallList(Reader):
    """Reads a JSON array of {"name", "parameters"}."""

    def __init__(self, tools: Tools, new_id: Callable[[], str]) -> None:
        super().__init__(tools, new_id=new_id)

    def read(self, source: Source) -> Steps[None]:
        """Reads the list."""
        source.begin()
        yield from source.skip_space()
        yield from source.expect("[")
        yield from source.skip_space()
        while (yield from _object(source)):
            source.begin()
            yield from source.skip_space()
            if (yield from source.expect(",", "]")) == "]":
                source.drop()
                yield from source.pass_rest()
            yield from source.skip_space()


def _object(source: Source) -> Steps[bool]:
    yield from json_text.call(source, arguments_keys=("parameters",))
    return source.end_call()
