"""Tool calls of Llama 3.1 and 3.2: {"name": …, "parameters": {…}}, one or several with ; between them.

Only an answer that begins with a call has calls: everything from the first other text on is content.
"""

import re

from outrider.server import json_text
from outrider.server.reader import NO_PROMPT, PromptEnd, Reader, Tools
from outrider.server.source import Source, Steps

_TAG = "<|python_tag|>"
_BETWEEN = re.compile(r"[ \t\r\n;]+")


class Parser(Reader):
    """Passes text on at once if it cannot be a call."""

    marks = (_TAG,)

    def __init__(self, tools: Tools, prompt_end: PromptEnd = NO_PROMPT) -> None:
        super().__init__(tools, prompt_end)
        self._is_text = False

    def read(self, source: Source) -> Steps[None]:
        """Reads one call, or all the rest as text."""
        if self._is_text:
            yield from source.pass_rest()
        self._is_text = True  # unless this is a call
        source.begin()
        yield from source.take_run(_BETWEEN)
        yield from source.option(_TAG)
        yield from source.skip_space()
        yield from json_text.call(source, arguments_keys=("parameters", "arguments"))
        self._is_text = not source.end_call()
