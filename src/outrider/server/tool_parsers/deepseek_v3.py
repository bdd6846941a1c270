"""Tool calls of DeepSeek V3 and R1: the name, then the arguments as a block of code.

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>name
```json
{…}
```<｜tool▁call▁end｜><｜tool▁calls▁end｜>
"""

import re

from outrider.server import json_text
from outrider.server.deepseek_calls import SEPARATOR, DeepseekParser
from outrider.server.source import Source, Steps

_NAME = re.compile(r"[a-zA-Z0-9_.-]+")


class Parser(DeepseekParser):
    """The type of each call is written in front of its name."""

    def read_call(self, source: Source) -> Steps[None]:
        """Reads type, name and block."""
        yield from source.expect("function")
        yield from source.expect(SEPARATOR)
        name = yield from source.take_run(_NAME)
        source.open_call(name)
        yield from source.skip_space()
        yield from source.expect("```json")
        yield from source.skip_space()
        yield from json_text.arguments(source)
        yield from source.skip_space()
        yield from source.expect("```")
