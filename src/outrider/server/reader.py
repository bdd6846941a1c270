"""The contract of parsers: an incremental reader of answers. Feed it text, get events; a whole answer is one feed.

Parsers of tool calls and of reasoning state only their format, in `read`. The output of a model decides what a reader
meets, so whatever `read` raises turns the text that it could not read into content. Knows no HTTP and no model.
"""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from outrider.server.answer_events import Event
from outrider.server.source import AnswerOverError, Source, Steps

Tools = Mapping[str, Mapping[str, Any]]
"""Name of each function that a request offers, and the JSON schema of its arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptEnd:
    """The end of the prompt, in which a template may have begun the answer."""

    text: str = ""
    """The last characters, or the whole last message if it is continued."""
    is_continued: bool = False
    """True if the answer continues a message."""
    is_json: bool = False
    """True if a schema forces the answer to be JSON from its first token on."""
    is_constrained: bool = False
    """True if another grammar forces the form of the answer from its first token on."""


NO_PROMPT = PromptEnd()


class Reader(ABC):
    """Reads one answer. Events depend on the text only, not on the pieces in which it comes."""

    marks: ClassVar[tuple[str, ...]] = ()
    """Marks of the format. Where one is a special token of the model, special tokens are kept in the text."""
    reads_reasoning: ClassVar[bool] = False
    """True if a parser of tool calls finds reasoning by itself, because one format holds both."""

    def __init__(
        self, tools: Tools, prompt_end: PromptEnd = NO_PROMPT, *, new_id: Callable[[], str] | None = None
    ) -> None:
        """`new_id` replaces the format's own ids of calls."""
        self.tools = tools
        self.prompt_end = prompt_end
        self.source = Source(tools, new_id or self.new_id)
        self._steps: Steps[None] | None = None

    @abstractmethod
    def read(self, source: Source) -> Steps[None]:
        """Reads the text up to the next call, and the call. It is called again until the answer ends."""

    @staticmethod
    def new_id() -> str:
        """A new id for a call, in the form that chat templates of this format accept."""
        return f"call_{secrets.token_hex(12)}"

    def feed(self, text: str) -> list[Event]:
        """Adds text. Returns the events that it completes."""
        self.source.add(text)
        return self._events()

    def finish(self) -> list[Event]:
        """Ends the answer. Returns the last events; no text is lost."""
        self.source.is_over = True
        return self._events()

    def _events(self) -> list[Event]:
        source = self.source
        while True:
            if self._steps is None:
                self._steps, self._begin = self.read(source), source.num_taken
            try:
                next(self._steps)
                break  # it waits for more text
            except StopIteration:
                source.fail()  # closes what `read` left open
            except AnswerOverError:
                source.end_answer()
                break
            except Exception:  # the model's output decides what is raised: RecursionError, ValueError, …
                source.fail()
            self._steps = None
            if source.num_taken == self._begin:  # so that it does not meet the same text again
                if not source.num_left:
                    break
                source.pass_on(1)
        return source.events()
