"""Tool calls of Hermes, Qwen2.5 and Qwen3: <tool_call>{"name": …, "arguments": {…}}</tool_call>."""

from outrider.server import json_text
from outrider.server.reader import Reader
from outrider.server.source import Source, Steps

_BEGIN, _END = "<tool_call>", "</tool_call>"


class Parser(Reader):
    """A call is between its marks, which its strings may quote."""

    marks = (_BEGIN, _END)

    def read(self, source: Source) -> Steps[None]:
        """Reads text up to a begin mark, and the call after it."""
        yield from source.pass_until(_BEGIN)
        yield from source.skip_space()
        yield from json_text.call(source, arguments_keys=("arguments",))
        yield from source.skip_space()
        yield from source.expect(_END)
        source.end_call()
