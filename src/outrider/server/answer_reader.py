"""Reads the text of one choice with the parsers of the server and the request: reasoning first, then tool calls.

Every endpoint makes its answers of these events. `read_whole` has the message that they add up to.
"""

from dataclasses import dataclass, field

from outrider.server.answer_events import (
    Arguments,
    CallBegin,
    CallBroken,
    CallEnd,
    Event,
    Reasoning,
    Text,
    joined,
)
from outrider.server.reader import Reader


@dataclass(slots=True)
class Call:
    """A call of a function; `arguments` is the model's text, cut if the answer was."""

    id: str
    name: str
    arguments: str


@dataclass(slots=True)
class WholeAnswer:
    """A whole answer."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)


class AnswerReader:
    """Reads one choice. Events depend on the text only, not on its pieces."""

    def __init__(
        self,
        *,
        reasoning: Reader | None = None,
        tools: Reader | None = None,
        is_parallel: bool = True,
        includes_reasoning: bool = True,
    ) -> None:
        """`is_parallel`: False drops all calls but the first. `includes_reasoning`: False drops the reasoning."""
        self._reasoning = reasoning
        self._tools = tools
        self._is_parallel = is_parallel
        self._includes_reasoning = includes_reasoning
        self._is_dropping = False
        self.num_calls = 0
        """Calls that have begun."""

    @property
    def is_plain(self) -> bool:
        """True if all text is content."""
        return self._reasoning is None and self._tools is None

    def feed(self, text: str) -> list[Event]:
        """Adds text. Returns the events that it completes."""
        if self.is_plain:
            return [Text(text)] if text else []
        read: list[Event] = self._reasoning.feed(text) if self._reasoning is not None else [Text(text)]
        return self._with_calls(read, is_last=False)

    def finish(self) -> list[Event]:
        """Ends the answer. Returns the last events."""
        read = self._reasoning.finish() if self._reasoning is not None else []
        return self._with_calls(read, is_last=True)

    def finish_reason(self, reason: str | None) -> str | None:
        """The finish reason to report: "tool_calls" if the output stopped after calls."""
        return "tool_calls" if reason == "stop" and self.num_calls else reason

    def read_whole(self, text: str, finish_reason: str | None) -> WholeAnswer:
        """Reads a whole answer. Text of a call that broke off is content, unless `finish_reason` says that the answer
        was cut: then the call is, too."""
        message = WholeAnswer()
        content: list[str] = []
        reasoning: list[str] = []
        for event in self.feed(text) + self.finish():
            if isinstance(event, Text):
                content.append(event.text)
            elif isinstance(event, Reasoning):
                reasoning.append(event.text)
            elif isinstance(event, CallBegin):
                message.calls.append(Call(event.id, event.name, ""))
            elif isinstance(event, Arguments):
                message.calls[-1].arguments += event.text
            elif isinstance(event, CallBroken) and not (event.is_cut and finish_reason == "length"):
                message.calls.pop()
                content.append(event.text)
        message.content, message.reasoning = "".join(content), "".join(reasoning)
        self.num_calls = len(message.calls)
        return message

    def _with_calls(self, read: list[Event], *, is_last: bool) -> list[Event]:
        events: list[Event] = []
        for event in read:
            if self._tools is not None and isinstance(event, Text):
                events += self._tools.feed(event.text)
            else:
                events.append(event)
        if self._tools is not None and is_last:
            events += self._tools.finish()
        return joined([kept for event in events if (kept := self._kept(event)) is not None])

    def _kept(self, event: Event) -> Event | None:
        if isinstance(event, Reasoning):
            return event if self._includes_reasoning else None
        if isinstance(event, CallBegin):
            self._is_dropping = not self._is_parallel and self.num_calls > 0
            if not self._is_dropping:
                self.num_calls += 1
        if self._is_dropping and isinstance(event, CallBroken):
            return Text(event.text)
        if self._is_dropping and isinstance(event, (CallBegin, Arguments, CallEnd)):
            return None
        return event
