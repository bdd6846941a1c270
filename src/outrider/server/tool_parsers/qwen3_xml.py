"""Tool calls of Qwen3-Coder, Qwen3.5 and later, whose arguments are texts between tags.

<tool_call>
<function=name>
<parameter=key>
value
</parameter>
</function>
</tool_call>
"""

import re

from outrider.server.reader import Reader
from outrider.server.source import Source, Steps
from outrider.server.tagged_values import TaggedArguments

_BEGIN, _END = "<tool_call>", "</tool_call>"
_FUNCTION, _END_OF_FUNCTION = "<function=", "</function>"
_PARAMETER, _END_OF_PARAMETER = "<parameter=", "</parameter>"
_NAME = re.compile(r"[^<>\n]+")


class Parser(Reader):
    """A function may lack the outer marks, as these models sometimes write it."""

    marks = (_BEGIN, _END)

    def read(self, source: Source) -> Steps[None]:
        """Reads text up to a begin mark, and the call after it."""
        is_marked = (yield from source.pass_until(_BEGIN, _FUNCTION)) == _BEGIN
        if is_marked:
            yield from source.skip_space()
            yield from source.expect(_FUNCTION)
        name = yield from source.take_run(_NAME)
        yield from source.expect(">")
        source.open_call(name)
        arguments = TaggedArguments(source, self.tools.get(name, {}))
        yield from source.skip_space()
        while (yield from source.expect(_PARAMETER, _END_OF_FUNCTION)) == _PARAMETER:
            key = yield from source.take_run(_NAME)
            yield from source.expect(">")
            yield from arguments.read_value(
                key, end=_END_OF_PARAMETER, followers=(_PARAMETER, _END_OF_FUNCTION), padding="\n"
            )
        arguments.close()
        if is_marked:
            yield from source.skip_space()
            yield from source.expect(_END)
        source.end_call()
