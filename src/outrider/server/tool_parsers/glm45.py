"""Tool calls of GLM-4.5 and later, whose arguments are texts between tags.

<tool_call>name
<arg_key>key</arg_key>
<arg_value>value</arg_value>
</tool_call>
"""

import re

from outrider.server.reader import Reader
from outrider.server.source import Source, Steps
from outrider.server.tagged_values import TaggedArguments

_BEGIN, _END = "<tool_call>", "</tool_call>"
_KEY, _END_OF_KEY = "<arg_key>", "</arg_key>"
_VALUE, _END_OF_VALUE = "<arg_value>", "</arg_value>"
_NAME = re.compile(r"[a-zA-Z0-9_.-]+")
_KEY_NAME = re.compile(r"[^<>\n]+")


class Parser(Reader):
    """White space between the tags is free: GLM-4.7 writes none."""

    marks = (_BEGIN, _END, _KEY, _END_OF_KEY, _VALUE, _END_OF_VALUE)

    def read(self, source: Source) -> Steps[None]:
        """Reads text up to a begin mark, and the call after it."""
        yield from source.pass_until(_BEGIN)
        yield from source.skip_space()
        name = yield from source.take_run(_NAME)
        yield from source.skip_space()
        is_over = (yield from source.expect(_KEY, _END)) == _END
        source.open_call(name)
        arguments = TaggedArguments(source, self.tools.get(name, {}))
        while not is_over:
            key = yield from source.take_run(_KEY_NAME)
            yield from source.expect(_END_OF_KEY)
            yield from source.skip_space()
            yield from source.expect(_VALUE)
            yield from arguments.read_value(key, end=_END_OF_VALUE, followers=(_KEY, _END))
            is_over = (yield from source.expect(_KEY, _END)) == _END
        arguments.close()
        source.end_call()
