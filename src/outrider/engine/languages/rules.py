"""Reads a grammar in Lark's form, and leaves out what derives no finite text: a least fixpoint over its rules.

A rule derives a finite text if one of its alternatives does, and an alternative if all its parts do. Alternatives that
do not would lead the output where it never ends. A grammar that cannot be read here is given to llguidance as it is.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from outrider.core.errors import RequestError

_TOKEN = re.compile(
    r"""(?P<skip>(?:\#|//)[^\n]*|[ \t]+)
    |(?P<newline>(?:\r?\n)+[ \t]*)
    |(?P<keyword>%[a-z]+)
    |(?P<string>"(?:\\.|[^"\\\n])*"i?)
    |(?P<regexp>/(?:\\.|[^/\\])+/[imslux]*)
    |(?P<rule>!?[_?]?[a-z][_a-z0-9\-]*)
    |(?P<terminal>_?[A-Z][_A-Z0-9\-]*)
    |(?P<special><[^<>\s]+>)
    |(?P<reference>@[a-zA-Z0-9_\-]+)
    |(?P<number>0[xX][0-9a-fA-F]+|[+-]?[0-9]+)
    |(?P<operator>[+*?])
    |(?P<mark>->|::|\.\.|[:,.(){}\[\]~|&=_])""",
    re.VERBOSE | re.DOTALL,
)
_END = ("newline", "|", "->", "}", ")", "]", "&", "%if", "")
"""Marks behind the last part of an alternative."""
_COUNT = re.compile(r"[ \t]*[+-]?[0-9]")
_CLASS = re.compile(r"\[\^(?:\\.|[^\]\[\\])*\]|\\[PDWS](?:\{[^}]*\})?")
"""A class of excluded characters, without another class in it."""
_MAX_DEPTH = 60
_MAX_LEVELS = 2000
"""Rules and groups within each other, from "start" on: llguidance reads them by recursion, and its stack is finite."""
_MAX_TERMINALS = 800
"""Terminals, which may lie within each other as well."""
_MAX_UNREAD_RULES = 400
_TOO_DEEP = "structured_outputs: the grammar has too many rules within each other. Give a flatter grammar."


class _UnreadError(Exception):
    """The grammar has a form that is not read here; llguidance takes or refuses it."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int
    """Index in the source where it ends."""


@dataclass(slots=True)
class _Part:
    """An expression: alternatives of sequences, a name, or anything that llguidance reads as one terminal."""

    kind: str  # "group", "rule", "nested" or "text"
    text: str = ""
    alternatives: list[list["_Part"]] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    repeat: str = ""
    may_be_absent: bool = False
    is_dead: bool = False
    """True if no finite text comes of it, apart from none at all."""
    nested: "_Grammar | None" = None


@dataclass(slots=True)
class _Grammar:
    heads: dict[str, str] = field(default_factory=dict)
    """The text in front of a rule's alternatives, by the rule's name."""
    rules: dict[str, _Part] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    """Terminals and statements, as they were written."""


Schemas = Callable[[str], str | None]
"""The text of a %json schema for llguidance; None if no finite JSON meets it."""
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
        reader = _Reader(source, read_schema=read_schema, end_tokens=frozenset(end_tokens))
        grammar = reader.grammar(until="")
    except (_UnreadError, RecursionError):
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


def _alive_rules(grammar: _Grammar, has_text: Terminals) -> set[str]:
    terminals = "\n".join(grammar.others)
    known: dict[str, bool] = {}
    may_be_empty = _may_be_empty(grammar, has_text)

    def is_alive(part: _Part) -> bool:
        return part.may_be_absent or has_content(part)

    def has_content(part: _Part) -> bool:
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

    def nested_alive(part: _Part) -> set[str]:
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


def _may_be_empty(grammar: _Grammar, has_text: Terminals) -> bool:
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


def _depth(grammar: _Grammar) -> int:
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


def _all_parts(grammar: _Grammar) -> list[_Part]:
    found: list[_Part] = []
    waiting = list(grammar.rules.values())
    while waiting:
        part = waiting.pop()
        found.append(part)
        for parts in part.alternatives:
            waiting += parts
    return found


def _text_of(grammar: _Grammar, alive: set[str]) -> str:
    rules = [f"{grammar.heads[name]} {_alternatives(body)}" for name, body in grammar.rules.items() if name in alive]
    return "\n".join([*grammar.others, *rules]) + "\n"


def _alternatives(part: _Part) -> str:
    texts = []
    for parts, condition in zip(part.alternatives, part.conditions, strict=True):
        if not any(one.is_dead and not one.may_be_absent for one in parts):
            texts.append((" ".join(map(_text, parts)) or '""') + condition)
    return " | ".join(texts)


def _text(part: _Part) -> str:
    if part.is_dead:
        return '""'
    if part.kind == "nested":
        assert part.nested is not None
        return f"%lark {{\n{_text_of(part.nested, set(part.nested.rules))}}}{part.repeat}"
    if part.kind == "group":
        return f"({_alternatives(part)}){part.repeat}"
    return f"{part.text}{part.repeat}"


class _Reader:
    def __init__(self, source: str, *, read_schema: Schemas, end_tokens: frozenset[str]) -> None:
        self._source = source
        self._read_schema = read_schema
        self._end_tokens = end_tokens
        self._depth = 0
        self._at = 0
        self._token = self._next()

    def grammar(self, *, until: str) -> _Grammar:
        """The items up to the mark `until`."""
        found = _Grammar()
        while True:
            while self._token.kind == "newline":
                self._advance()
            if self._token.text == until and self._token.kind in ("mark", ""):
                return found
            if self._token.kind == "rule":
                self._rule(found)
            elif self._token.kind in ("terminal", "keyword"):
                found.others.append(self._verbatim(self._token.start))
            else:
                raise _UnreadError

    def _rule(self, found: _Grammar) -> None:
        name, start = self._token.text.lstrip("!?"), self._token.start
        self._advance()
        has_body_of_its_own = False
        while self._token.text != ":":
            if self._token.kind == "newline" or not self._token.kind:
                raise _UnreadError
            # a capture says nothing about the text; stop, suffix, lazy and max_tokens make a terminal of the rule
            has_body_of_its_own |= self._token.text in ("stop", "suffix", "lazy", "max_tokens", "temperature")
            self._advance()
        head = self._source[start : self._token.end]
        if name in found.rules:
            raise RequestError(f"structured_outputs: the grammar has two rules named {name!r}. Rename one.")
        if has_body_of_its_own:
            found.others.append(self._verbatim(start))
            return
        self._advance()
        found.heads[name] = head
        found.rules[name] = self._group()

    def _verbatim(self, start: int) -> str:
        """The item from `start` to the end of its alternatives."""
        if self._token.text in ("%override", "%declare"):
            raise _UnreadError
        end = self._token.end
        while self._token.kind:
            if self._token.kind == "newline":
                self._advance()
                if self._token.text != "|":
                    break
            if self._token.text == "}" and self._depth and not self._is_braced(start):
                break
            end = self._token.end
            self._advance()
        return self._source[start:end]

    def _is_braced(self, start: int) -> bool:
        """True if a brace is open in the item that began at `start`."""
        text = re.sub(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\])+/', "", self._source[start : self._token.end - 1])
        return text.count("{") > text.count("}")

    def _group(self) -> _Part:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _UnreadError
        group = _Part("group")
        while True:
            group.alternatives.append(self._sequence())
            group.conditions.append(self._condition())
            if self._token.kind == "newline":
                before = (self._at, self._token)
                self._advance()
                if self._token.text != "|":
                    self._at, self._token = before
            if self._token.text != "|":
                break
            self._advance()
        self._depth -= 1
        return group

    def _condition(self) -> str:
        """An alias, which is dropped, and %if with its condition."""
        if self._token.text == "->":
            self._advance()
            self._advance()
        if self._token.text != "%if":
            return ""
        start, end, depth = self._token.start, self._token.end, 0
        while self._token.kind not in ("newline", "") and (depth or self._token.text not in ("|", ")", "}")):
            depth += (self._token.text == "(") - (self._token.text == ")")
            end = self._token.end
            self._advance()
        return " " + self._source[start:end]

    def _sequence(self) -> list[_Part]:
        parts = []
        while self._token.kind != "newline" and self._token.text not in _END:
            parts.append(self._expression())
        if self._token.text == "&":
            raise _UnreadError
        return parts

    def _expression(self) -> _Part:
        part = self._atom()
        start, least = self._token.start, None
        if self._token.kind == "operator":
            least = 1 if self._token.text == "+" else 0
            self._advance()
        elif self._token.text == "~" and _COUNT.match(self._source, self._at):
            self._advance()
            least = self._integer()
            if self._token.text == "..":
                self._advance()
                self._integer()
        elif self._token.text == "{":
            self._advance()
            least = 0 if self._token.text == "," else self._integer()
            while self._token.text != "}":
                if self._token.kind not in ("number", "mark"):
                    raise _UnreadError
                self._advance()
            self._advance()
        if least is not None:
            part.repeat = self._source[start : self._behind_last].rstrip()
            part.may_be_absent |= least == 0
        return part

    def _integer(self) -> int:
        if self._token.kind != "number":
            raise _UnreadError
        text = self._token.text
        self._advance()
        return int(text, 0)

    def _atom(self) -> _Part:
        token = self._token
        if token.text == "(":
            self._advance()
            part = self._group()
            self._expect(")")
            return part
        if token.text == "[":
            self._advance()
            part = self._group()
            self._expect("]")
            part.repeat, part.may_be_absent = "?", True
            return part
        self._advance()
        if token.text == "~":
            self._atom()
            return _Part("text", self._source[token.start : self._behind_last])
        if token.kind == "json":
            text = self._read_schema(token.text)
            return _Part("text", f"%json {text}", is_dead=text is None)
        if token.text == "%lark":
            return self._nested(token)
        if token.kind == "special":
            return _Part("text", token.text, is_dead=token.text in self._end_tokens)
        if token.kind == "rule":
            return self._name(token)
        if token.kind in ("string", "regexp", "terminal", "reference", "regex"):
            return self._terminal(token)
        raise _UnreadError

    def _nested(self, token: _Token) -> _Part:
        self._expect("{")
        nested = self.grammar(until="}")
        self._advance()
        return _Part("nested", self._source[token.start : self._behind_last], nested=nested)

    def _name(self, token: _Token) -> _Part:
        if self._token.text != "::":
            return _Part("rule", token.text.lstrip("!?"))
        self._advance()  # a parameter: name::incr(_)
        self._advance()
        if self._token.text == "(":
            while self._token.text != ")" and self._token.kind:
                self._advance()
            self._advance()
        part = _Part("group", alternatives=[[_Part("rule", token.text)]], conditions=[""])
        part.alternatives[0][0].repeat = self._source[token.end : self._behind_last]
        return part

    def _terminal(self, token: _Token) -> _Part:
        text = token.text
        if token.kind == "string" and self._token.text == "..":
            self._advance()
            text = f"{text}..{self._token.text}"
            self._advance()
        return _Part("text", text)

    def _expect(self, text: str) -> None:
        if self._token.text != text:
            raise _UnreadError
        self._advance()

    def _advance(self) -> None:
        self._behind_last = self._token.end
        self._token = self._next()

    def _next(self) -> _Token:
        while True:
            if self._at >= len(self._source):
                return _Token("", "", self._at, self._at)
            found = _TOKEN.match(self._source, self._at)
            if found is None:
                raise _UnreadError
            self._at = found.end()
            kind = found.lastgroup or ""
            if found[0] in ("%json", "%regex", "%llguidance"):
                return self._with_value(found[0], found.start())
            if kind != "skip":
                return _Token(kind, found[0], found.start(), found.end())

    def _with_value(self, keyword: str, keyword_start: int) -> _Token:
        """A keyword and the JSON behind it, as one token."""
        start = self._at
        while self._source[start : start + 1].isspace():
            start += 1
        try:
            _, end = json.JSONDecoder().raw_decode(self._source, start)
        except ValueError:
            raise _UnreadError from None
        self._at = end
        value = self._source[start:end]
        if keyword == "%json":
            return _Token("json", value, keyword_start, end)
        kind = "keyword" if keyword == "%llguidance" else "regex"
        return _Token(kind, f"{keyword} {value}", keyword_start, end)
