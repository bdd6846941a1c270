"""Tool calls as a list of calls in Python: [name(key="value", other=[1, None]), …]; Llama 3.2 and 4, ToolACE.

Only an answer that begins with a call has calls. Values are literals; they are written as JSON, numbers unchanged.
"""

import re

from outrider.server import json_text, python_literals
from outrider.server.reader import NO_PROMPT, PromptEnd, Reader, Tools
from outrider.server.source import Source, Steps

_BEGIN, _END = "<|python_start|>", "<|python_end|>"
_NAME = re.compile(r"[a-zA-Z0-9_.-]+")
_KEY = re.compile(r"\w+")


class Parser(Reader):
    """Passes text on at once if it cannot be a call."""

    marks = (_BEGIN, _END)

    def __init__(self, tools: Tools, prompt_end: PromptEnd = NO_PROMPT) -> None:
        super().__init__(tools, prompt_end)
        self._is_text = False

    def read(self, source: Source) -> Steps[None]:
        """Reads the list of calls, or all the rest as text."""
        if self._is_text:
            yield from source.pass_rest()
        self._is_text = True
        source.begin()
        yield from source.skip_space()
        is_marked = (yield from source.option(_BEGIN)) is not None
        yield from source.skip_space()
        yield from source.expect("[")
        yield from source.skip_space()
        while (yield from self._call(source)):
            source.begin()
            yield from source.skip_space()
            if (yield from source.expect(",", "]")) == "]":
                if is_marked:
                    yield from source.option(_END)
                source.drop()
                return
            yield from source.skip_space()

    def _call(self, source: Source) -> Steps[bool]:
        name = yield from source.take_run(_NAME)
        yield from source.expect("(")
        source.open_call(name)
        yield from source.skip_space()
        source.write_arguments("{")
        separator = ""
        while (yield from source.option(")")) is None:
            key = yield from source.take_run(_KEY)
            yield from source.skip_space()
            yield from source.expect("=")
            yield from source.skip_space()
            source.write_arguments(f"{separator}{json_text.quoted(key)}: ")
            separator = ", "
            yield from python_literals.value(source)
            yield from source.skip_space()
            if (yield from source.expect(",", ")")) == ")":
                break
            yield from source.skip_space()
        source.write_arguments("}")
        source.close_arguments()
        return source.end_call()
