"""Tool calls of DeepSeek V3.1: the name, then the arguments without a block of code.

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>name<｜tool▁sep｜>{…}<｜tool▁call▁end｜><｜tool▁calls▁end｜>
"""

import re

from outrider.server import json_text
from outrider.server.deepseek_calls import SEPARATOR, DeepseekParser
from outrider.server.source import Source, Steps

_NAME = re.compile(r"[a-zA-Z0-9_.-]+")


class Parser(DeepseekParser):
    """Name and arguments have the separator between them."""

    def read_call(self, source: Source) -> Steps[None]:
        """Reads name and arguments."""
        name = yield from source.take_run(_NAME)
        yield from source.expect(SEPARATOR)
        source.open_call(name)
        yield from source.skip_space()
        yield from json_text.arguments(source)
