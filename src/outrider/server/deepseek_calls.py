"""The marks around DeepSeek's tool calls, which its versions share; what is inside of a call is in their parsers."""

from abc import abstractmethod

from outrider.server.reader import Reader
from outrider.server.source import Source, Steps

_CALLS, _END_OF_CALLS = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _END_OF_CALL = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"


class DeepseekParser(Reader):
    """Calls follow each other between the outer marks."""

    marks = (_CALLS, _END_OF_CALLS, _CALL, _END_OF_CALL, SEPARATOR)

    @abstractmethod
    def read_call(self, source: Source) -> Steps[None]:
        """Reads a call between its marks, in an open attempt."""

    def read(self, source: Source) -> Steps[None]:
        """Reads text up to the outer mark, and the calls after it. A model may leave the outer mark out."""
        if (yield from source.pass_until(_CALLS, _CALL)) == _CALLS:
            yield from source.skip_space()
            yield from source.expect(_CALL)
        while True:
            yield from self.read_call(source)
            yield from source.skip_space()
            yield from source.expect(_END_OF_CALL)
            if not source.end_call():
                return
            source.begin()
            yield from source.skip_space()
            if (yield from source.option(_CALL)) is None:
                if (yield from source.option(_END_OF_CALLS)) is not None:
                    source.drop()
                return
