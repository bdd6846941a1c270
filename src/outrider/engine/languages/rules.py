"""Leaves out what derives no finite text in a grammar in Lark's form: a least fixpoint over its rules.

A rule derives a finite text if one of its alternatives does, and an alternative if all its parts do. Alternatives that
do not would lead the output where it never ends. A grammar that cannot be read here is given to llguidance as it is.
"""

import re
from collections.abc import Callable, Iterable

from outrider.core.errors import RequestError
from outrider.engine.languages.lark import Grammar, LarkReader, Part, Schemas, UnreadError

_CLASS = re.compile(r"\[\^(?:\\.|[^\]\[\\])*\]|\\[PDWS](?:\{[^}]*\})?")
"""A class of excluded characters, without another class in it."""
_MAX_LEVELS = 2000
"""Rules and groups within each other, from "start" on: llguidance reads them by recursion, and its stack is finite."""
_MAX_TERMINALS = 800
"""Terminals, which may lie within each other as well."""
_MAX_UNREAD_RULES = 400
_TOO_DEEP = "structured_outputs: the grammar has too many rules within each other. Give a flatter grammar."


Terminals = Callable[[str], bool]
"""False if certainly no text matches a terminal, given as a grammar of its own."""


def without_dead_rules(
    source: str, *, read_schema: Schemas, has_text: Terminals, end_tokens: Iterable[str] = (), root: str = "start"
) -> str:
    """The grammar without what derives no finite text. Raises RequestError if nothing is left.

    `end_tokens`: names of the special tokens that end an output; no output has them in it. `root`: the name of the
    rule "start" as the caller wrote it.
    """
    try:
        reader = LarkReader(source, read_schema=read_schema, end_tokens=frozenset(end_tokens))
        grammar = reader.grammar(until="")
    except (UnreadError, RecursionError):
        if source.count(":") > _MAX_UNREAD_RULES:
            raise RequestError(_TOO_DEEP) from None
        return source
    if len(grammar.others) > _MAX_TERMINALS or _depth(grammar) > _MAX_LEVELS:
        raise RequestError(_TOO_DEEP)
    if "start" not in grammar.rules:
        return source
    alive = _alive_rules(grammar, has_text)
    if "start" not in alive:
        dead = next((name for name in grammar.rules if name not in alive and name != "start"), root)
        raise RequestError(
            f"structured_outputs: no finite text meets the grammar: the rule {dead!r} can never end. "
            "Give it an alternative that does."
        )
    return _text_of(grammar, alive)


def _alive_rules(grammar: Grammar, has_text: Terminals) -> set[str]:
    terminals = "\n".join(grammar.others)
    known: dict[str, bool] = {}
    may_be_empty = _may_be_empty(grammar, has_text)

    def is_alive(part: Part) -> bool:
        return part.may_be_absent or has_content(part)

    def has_content(part: Part) -> bool:
        if part.kind == "rule" and part.text in grammar.rules:
            return part.text in alive
        if part.kind == "group":
            return any(all(map(is_alive, parts)) for parts in part.alternatives)
        if part.kind == "nested":
            return "start" in nested_alive(part)
        if part.is_dead or not may_be_empty or part.text.startswith(('"', "%json", "@", "<")):
            return not part.is_dead
        if part.text not in known:
            known[part.text] = has_text(f"start: {part.text}\n{terminals}")
        return known[part.text]

    def nested_alive(part: Part) -> set[str]:
        assert part.nested is not None
        if part.text not in nested:
            nested[part.text] = _alive_rules(part.nested, has_text)
        return nested[part.text]

    alive: set[str] = set()
    nested: dict[str, set[str]] = {}
    has_changed = True
    while has_changed:
        found = {name for name, body in grammar.rules.items() if name not in alive and is_alive(body)}
        has_changed = bool(found)
        alive |= found
    for part in _all_parts(grammar):
        part.is_dead = not has_content(part)
    return alive


def _may_be_empty(grammar: Grammar, has_text: Terminals) -> bool:
    """False if every terminal has a text for sure. Only classes, & and ~ can leave none."""
    texts = [*grammar.others, *(part.text for part in _all_parts(grammar) if part.kind == "text")]
    classes: set[str] = set()
    for text in texts:
        if "&" in text or "~" in text or "--" in text:
            return True
        classes.update(_CLASS.findall(text))
        if "[^" in _CLASS.sub("", text):
            return True
    return not all(has_text(f"start: /{one}/") for one in classes)


def _depth(grammar: Grammar) -> int:
    """The most rules and groups within each other that llguidance meets: it follows a name where it sees it first."""
    seen: set[str] = {"start"}
    start = grammar.rules.get("start")
    open_parts = [iter([start] if start is not None else [])]
    deepest = 0
    while open_parts:
        part = next(open_parts[-1], None)
        if part is None:
            open_parts.pop()
            continue
        inner = [one for parts in part.alternatives for one in parts]
        if part.kind == "rule" and part.text in grammar.rules and part.text not in seen:
            seen.add(part.text)
            inner.append(grammar.rules[part.text])
        if part.nested is not None:
            deepest = max(deepest, len(open_parts) + _depth(part.nested))
        open_parts.append(iter(inner))
        deepest = max(deepest, len(open_parts))
    return deepest


def _all_parts(grammar: Grammar) -> list[Part]:
    found: list[Part] = []
    waiting = list(grammar.rules.values())
    while waiting:
        part = waiting.pop()
        found.append(part)
        for parts in part.alternatives:
            waiting += parts
    return found


def _text_of(grammar: Grammar, alive: set[str]) -> str:
    rules = [f"{grammar.heads[name]} {_alternatives(body)}" for name, body in grammar.rules.items() if name in alive]
    return "\n".join([*grammar.others, *rules]) + "\n"


def _alternatives(part: Part) -> str:
    texts = []
    for parts, condition in zip(part.alternatives, part.conditions, strict=True):
        if not any(one.is_dead and not one.may_be_absent for one in parts):
            texts.append((" ".join(map(_text, parts)) or '""') + condition)
    return " | ".join(texts)


def _text(part: Part) -> str:
    if part.is_dead:
        return '""'
    if part.kind == "nested":
        assert part.nested is not None
        return f"%lark {{\n{_text_of(part.nested, set(part.nested.rules))}}}{part.repeat}"
    if part.kind == "group":
        return f"({_alternatives(part)}){part.repeat}"
    return f"{part.text}{part.repeat}"
