"""One conversation: its messages, the settings of the next answer, and the commands that change them.

Knows no terminal: it asks an `Answerer`, tells a `Listener`, and returns what is to be said.
"""

import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Protocol, TypeVar

from outrider.chat.answer import Answer, Answerer, Message, Settings, Update, comparison
from outrider.chat.interrupts import Interrupts
from outrider.core.errors import RequestError

_MAX_DRAWN_SEED = 2**31


class Listener(Protocol):
    """Shows an answer as it grows."""

    def begin(self) -> None:
        """An answer begins."""
        ...

    def take(self, update: Update, answer: Answer) -> None:
        """A step of it; `answer` includes the step."""
        ...

    def end(self, answer: Answer) -> None:
        """It has ended."""
        ...

    def say(self, text: str) -> None:
        """Show a text other than an answer."""
        ...


class Conversation:
    """Messages and settings."""

    def __init__(
        self,
        answerer: Answerer,
        listener: Listener,
        settings: Settings,
        *,
        system: str | None,
        interrupts: Interrupts | None = None,
    ) -> None:
        """`system`: instructions before the conversation. `interrupts`: None to handle Ctrl-C in answers only."""
        self.is_over = False
        self._interrupts = interrupts or Interrupts()
        self.settings = settings
        self._answerer = answerer
        self._listener = listener
        self._system = system
        self._turns: list[Message] = []
        self._last: Answer | None = None
        self._commands: dict[str, tuple[Callable[[str], None], str]] = {
            "/help": (self._help, "shows these commands"),
            "/system": (self._set_system, "TEXT: instructions before the conversation; without TEXT none"),
            "/temperature": (self._set_temperature, "NUMBER: 0 is greedy; without NUMBER as the model recommends"),
            "/seed": (self._set_seed, "NUMBER: the same question then has the same answer; without NUMBER drawn"),
            "/max_tokens": (self._set_max_tokens, "NUMBER: longest answer; without NUMBER what the context holds"),
            "/spec": (self._set_drafts, "off | on: answers the last question again without or with drafts"),
            "/retry": (self._retry, "answers the last question again, with another seed if none is set"),
            "/history": (self._show, "shows the conversation"),
            "/clear": (self._clear, "begins a new conversation"),
            "/exit": (self._exit, "ends, as Ctrl-D does"),
        }

    def hear(self, text: str) -> None:
        """Handle one input: a command if it begins with a slash, else a message. Errors of a request are said."""
        try:
            if text.startswith("/"):
                self._obey(text)
            elif text.strip():
                self._turns.append({"role": "user", "content": text})
                self._answer(self.settings)
        except RequestError as error:
            self._listener.say(str(error))

    def _obey(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        if name not in self._commands:
            raise RequestError(f"{name} is not a command. Commands: {', '.join(self._commands)}.")
        self._commands[name][0](rest.strip())

    def _answer(self, settings: Settings) -> Answer:
        """Answer the last message, which is a user's; an answer that fails leaves the conversation as it was."""
        if settings.seed is None:
            settings = replace(settings, seed=random.randrange(_MAX_DRAWN_SEED))
        system = [{"role": "system", "content": self._system}] if self._system else []
        answer = Answer(settings)
        self._listener.begin()
        try:
            updates = self._answerer.answer([*system, *self._turns], settings)
            with self._interrupts.answering() as is_interrupted, closing(updates):
                for update in updates:
                    answer.add(update)
                    self._listener.take(update, answer)
                    if is_interrupted():
                        break
        except BaseException:
            self._turns.pop()
            raise
        finally:
            self._listener.end(answer)
        self._turns.append({"role": "assistant", "content": answer.text})
        self._last = answer
        return answer

    def _again(self, settings: Settings) -> Answer:
        if self._last is None or not self._turns:
            raise RequestError("there is no answer to repeat. Ask something first.")
        kept = self._turns.pop()
        question = self._turns[-1]
        try:
            return self._answer(settings)
        except BaseException:
            self._turns += [question, kept]
            raise

    # ---- commands

    def _help(self, rest: str) -> None:
        lines = [f"{name:13} {text}" for name, (_, text) in self._commands.items()]
        lines.append('A line that ends in \\ continues in the next; """ begins and ends a text of several lines.')
        self._listener.say("\n".join(lines))

    def _set_system(self, rest: str) -> None:
        self._system = rest or None
        self._listener.say("Set for the next answer." if rest else "The conversation has no instructions now.")

    def _set_temperature(self, rest: str) -> None:
        value = _number(rest, float, "/temperature", low=0.0, high=10.0)
        self.settings = replace(self.settings, temperature=value)
        self._listener.say(f"temperature: {'as the model recommends' if value is None else f'{value:g}'}")

    def _set_seed(self, rest: str) -> None:
        value = _number(rest, int, "/seed", low=-(2**63), high=2**63 - 1)
        self.settings = replace(self.settings, seed=value)
        self._listener.say(f"seed: {'drawn for each answer' if value is None else value}")

    def _set_max_tokens(self, rest: str) -> None:
        value = _number(rest, int, "/max_tokens", low=1, high=2**31 - 1)
        self.settings = replace(self.settings, max_tokens=value)
        self._listener.say(f"max_tokens: {'what the context holds' if value is None else value}")

    def _set_drafts(self, rest: str) -> None:
        if rest not in ("on", "off"):
            raise RequestError(f"/spec {rest} is not known. Use /spec off or /spec on.")
        if not self._answerer.has_drafter:
            raise RequestError("there is no drafter to switch. Start with --speculative-config, on a server too.")
        self.settings = replace(self.settings, has_drafts=rest == "on")
        if self._last is None:
            self._listener.say(f"drafts: {rest}")
            return
        before = self._last
        after = self._again(replace(before.settings, has_drafts=self.settings.has_drafts))
        self._listener.say(comparison(before, after)[0])

    def _retry(self, rest: str) -> None:
        self._again(self.settings)

    def _show(self, rest: str) -> None:
        system = [{"role": "system", "content": self._system}] if self._system else []
        shown = [f"{message['role']}: {message['content']}" for message in [*system, *self._turns]]
        self._listener.say("\n".join(shown) or "Nothing has been said.")

    def _clear(self, rest: str) -> None:
        self._turns.clear()
        self._last = None
        self._listener.say("A new conversation.")

    def _exit(self, rest: str) -> None:
        self.is_over = True


Number = TypeVar("Number", int, float)


def _number(text: str, kind: Callable[[str], Number], name: str, *, low: Number, high: Number) -> Number | None:
    if not text:
        return None
    try:
        value = kind(text)
    except ValueError:
        raise RequestError(f"{name} {text} is not a number. Example: {name} 1.") from None
    if not low <= value <= high:
        raise RequestError(f"{name} {text} is out of range. Use {low:g} to {high:g}.")
    return value
