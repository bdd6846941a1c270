"""OpenAI's harmony format, in which gpt-oss answers: messages in channels, which hold reasoning, content and calls.

    <|channel|>analysis<|message|>…<|end|>
    <|start|>assistant<|channel|>commentary to=functions.name <|constrain|>json<|message|>{…}<|call|>
    <|start|>assistant<|channel|>final<|message|>…<|return|>

The recipient may be in front of the channel. The last mark of an answer ends it and is not in its text.
"""

import re

from outrider.server import json_text
from outrider.server.answer_events import Reasoning, Text
from outrider.server.reader import Reader
from outrider.server.source import Source, Steps, UnreadableError

_START, _CHANNEL, _CONSTRAIN, _MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>")
_WORDS = re.compile(r"[^<]+")
_RECIPIENT = re.compile(r"\bto=functions\.([a-zA-Z0-9_.-]+)")


class HarmonyReader(Reader):
    """Reads message by message. What is not in a message is content."""

    marks = (_START, _CHANNEL, _CONSTRAIN, _MESSAGE, *_ENDS)
    reads_reasoning = True

    def read(self, source: Source) -> Steps[None]:
        """Reads messages until one is complete."""
        if not source.num_taken and self.prompt_end.text.endswith(f"{_CHANNEL}analysis{_MESSAGE}"):
            mark = yield from source.pass_until(*_ENDS, _START, kind=Reasoning)
        else:
            mark = yield from source.pass_until(_START, _CHANNEL)
        while mark not in _ENDS:
            channel, recipient = yield from _header(source, mark)
            if recipient is not None:
                source.open_call(recipient)
                yield from source.skip_space()
                yield from json_text.arguments(source)
                yield from source.skip_space()
                if not (yield from source.next_is(_START)):
                    yield from source.expect(*_ENDS)
                source.end_call()
                return
            source.drop()
            kind = Reasoning if channel == "analysis" else Text
            mark = yield from source.pass_until(*_ENDS, _START, kind=kind)
        source.drop()


def _header(source: Source, mark: str) -> Steps[tuple[str, str | None]]:
    """Takes a header after its first mark. Returns the channel, and the name of the function that is called, if any."""
    header = channel = ""
    if mark == _START:
        header = yield from source.take_run(_WORDS)
        if not header.startswith("assistant"):
            raise UnreadableError
        mark = yield from source.expect(_CHANNEL, _MESSAGE)
    if mark == _CHANNEL:
        words = yield from source.take_run(_WORDS)
        header += f" {words}"
        channel = (words.split() or [""])[0]
        if (yield from source.expect(_CONSTRAIN, _MESSAGE)) == _CONSTRAIN:
            yield from source.take_run(_WORDS)
            yield from source.expect(_MESSAGE)
    if channel not in ("", "analysis", "commentary", "final"):
        raise UnreadableError
    recipient = _RECIPIENT.search(header)
    if recipient is None and "to=" in header:  # a tool of another kind
        raise UnreadableError
    return channel, recipient[1] if recipient is not None else None
