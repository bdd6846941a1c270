"""Reads a grammar in Lark's form into rules of alternatives; terminals and statements stay as they were written.

Takes what llguidance takes. A grammar that it cannot read raises UnreadError, and llguidance says what is wrong.
"""

import json
import re
from collections.abc import Callable
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
_MAX_DEPTH = 60
"""Groups within each other; llguidance takes fewer."""


class UnreadError(Exception):
    """The grammar has a form that is not read here; llguidance takes or refuses it."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int
    """Index in the source where it ends."""


@dataclass(slots=True)
class Part:
    """An expression: alternatives of sequences, a name, or anything that llguidance reads as one terminal."""

    kind: str  # "group", "rule", "nested" or "text"
    text: str = ""
    alternatives: list[list["Part"]] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    repeat: str = ""
    may_be_absent: bool = False
    is_dead: bool = False
    """True if no finite text comes of it, apart from none at all."""
    nested: "Grammar | None" = None


@dataclass(slots=True)
class Grammar:
    """The items of one grammar."""

    heads: dict[str, str] = field(default_factory=dict)
    """The text in front of a rule's alternatives, by the rule's name."""
    rules: dict[str, Part] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    """Terminals and statements, as they were written."""


Schemas = Callable[[str], str | None]
"""The text of a %json schema for llguidance; None if no finite JSON meets it."""


class LarkReader:
    """Reads the items of a source, token by token."""

    def __init__(self, source: str, *, read_schema: Schemas, end_tokens: frozenset[str]) -> None:
        self._source = source
        self._read_schema = read_schema
        self._end_tokens = end_tokens
        self._depth = 0
        self._at = 0
        self._token = self._next()

    def grammar(self, *, until: str) -> Grammar:
        """The items up to the mark `until`."""
        found = Grammar()
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
                raise UnreadError

    def _rule(self, found: Grammar) -> None:
        name, start = self._token.text.lstrip("!?"), self._token.start
        self._advance()
        has_body_of_its_own = False
        while self._token.text != ":":
            if self._token.kind == "newline" or not self._token.kind:
                raise UnreadError
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
            raise UnreadError
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

    def _group(self) -> Part:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnreadError
        group = Part("group")
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

    def _sequence(self) -> list[Part]:
        parts = []
        while self._token.kind != "newline" and self._token.text not in _END:
            parts.append(self._expression())
        if self._token.text == "&":
            raise UnreadError
        return parts

    def _expression(self) -> Part:
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
                    raise UnreadError
                self._advance()
            self._advance()
        if least is not None:
            part.repeat = self._source[start : self._behind_last].rstrip()
            part.may_be_absent |= least == 0
        return part

    def _integer(self) -> int:
        if self._token.kind != "number":
            raise UnreadError
        text = self._token.text
        self._advance()
        return int(text, 0)

    def _atom(self) -> Part:
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
            return Part("text", self._source[token.start : self._behind_last])
        if token.kind == "json":
            text = self._read_schema(token.text)
            return Part("text", f"%json {text}", is_dead=text is None)
        if token.text == "%lark":
            return self._nested(token)
        if token.kind == "special":
            return Part("text", token.text, is_dead=token.text in self._end_tokens)
        if token.kind == "rule":
            return self._name(token)
        if token.kind in ("string", "regexp", "terminal", "reference", "regex"):
            return self._terminal(token)
        raise UnreadError

    def _nested(self, token: _Token) -> Part:
        self._expect("{")
        nested = self.grammar(until="}")
        self._advance()
        return Part("nested", self._source[token.start : self._behind_last], nested=nested)

    def _name(self, token: _Token) -> Part:
        if self._token.text != "::":
            return Part("rule", token.text.lstrip("!?"))
        self._advance()  # a parameter: name::incr(_)
        self._advance()
        if self._token.text == "(":
            while self._token.text != ")" and self._token.kind:
                self._advance()
            self._advance()
        part = Part("group", alternatives=[[Part("rule", token.text)]], conditions=[""])
        part.alternatives[0][0].repeat = self._source[token.end : self._behind_last]
        return part

    def _terminal(self, token: _Token) -> Part:
        text = token.text
        if token.kind == "string" and self._token.text == "..":
            self._advance()
            text = f"{text}..{self._token.text}"
            self._advance()
        return Part("text", text)

    def _expect(self, text: str) -> None:
        if self._token.text != text:
            raise UnreadError
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
                raise UnreadError
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
            raise UnreadError from None
        self._at = end
        value = self._source[start:end]
        if keyword == "%json":
            return _Token("json", value, keyword_start, end)
        kind = "keyword" if keyword == "%llguidance" else "regex"
        return _Token(kind, f"{keyword} {value}", keyword_start, end)
