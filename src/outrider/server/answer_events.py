"""Events of an answer that is read while it is written: content, reasoning, and calls of functions.

A call is CallBegin, its Arguments in pieces, then CallEnd or CallBroken. Calls do not overlap. Knows no
format and no HTTP.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """Content for the caller."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text in which the model reasons, without its marks."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A call of a function that the request offers."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """The next piece of the call's arguments. All pieces of a complete call are one JSON object."""

    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The call is complete."""


@dataclass(frozen=True, slots=True)
class CallBroken:
    """The call that began is not one after all: a whole answer contains `text` in its place.

    A stream has sent the beginning of the call by then. It ignores this event: the rest of the text follows as Text.
    """

    text: str
    """All that the model wrote for the call so far."""
    is_cut: bool
    """True if nothing is wrong except that the answer ended."""


Event = Text | Reasoning | CallBegin | Arguments | CallEnd | CallBroken


def joined(events: list[Event]) -> list[Event]:
    """Joins neighbours that are all Text, all Reasoning or all Arguments, and drops empty ones."""
    found: list[Event] = []
    run: list[str] = []
    kind: type[Text] | type[Reasoning] | type[Arguments] | None = None
    for event in events:
        this = type(event) if isinstance(event, (Text, Reasoning, Arguments)) else None
        if kind is not None and this is not kind:
            found.append(kind("".join(run)))
            run = []
        kind = this
        if isinstance(event, (Text, Reasoning, Arguments)):
            if event.text:
                run.append(event.text)
            elif not run:
                kind = None
        else:
            found.append(event)
    if kind is not None:
        found.append(kind("".join(run)))
    return found
