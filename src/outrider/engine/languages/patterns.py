r"""Regular expressions in the form that llguidance reads exactly (Rust's), from those that callers write.

A `regex` has the syntax and meaning of Python's `re`, a schema's `pattern` that of ECMA-262. Where readers of patterns
differ, as about \w and \s beyond ASCII, the translation matches only what all of them match: every output is valid to
ECMA-262 and to Python. Classes like \p{L} are taken, too. What llguidance cannot follow is refused by name.
"""

import re
from dataclasses import dataclass
from typing import NoReturn

from outrider.core.errors import RequestError

_SPACES = r"\t\n\x0b\f\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_WORD = r"\p{L}\p{N}_"


@dataclass(frozen=True, slots=True)
class _Dialect:
    """The characters of \\d, \\w, \\s and the dot."""

    name: str
    certain: dict[str, str]
    """Those that every reader takes for one."""
    possible: dict[str, str]
    """Those that some reader takes for one; their complement is \\D, \\W, \\S."""
    dot: str


_PYTHON = _Dialect(
    name="regex",
    certain={"d": r"\p{Nd}&&\p{age=14.0}", "w": rf"[{_WORD}]&&\p{{age=14.0}}", "s": rf"{_SPACES}\x1c-\x1f\x{{85}}"},
    possible={"d": r"\p{Nd}", "w": _WORD, "s": rf"{_SPACES}\x1c-\x1f\x{{85}}"},
    dot=".",
)
_ECMA = _Dialect(
    name="pattern",
    certain={"d": "0-9", "w": "A-Za-z0-9_", "s": _SPACES},
    possible={"d": r"\p{Nd}", "w": _WORD, "s": rf"{_SPACES}\x1c-\x1f\x{{85}}\x{{feff}}"},
    dot=r"[^\n\r\x{2028}\x{2029}]",
)

_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_REPEAT = re.compile(r"\{(\d+)(,(\d*))?\}|\{(),(\d+)\}")
_GROUP = re.compile(r"\(\?(?:P?<(?![=!])[^>]*>|:)")
_FLAGS = re.compile(r"\(\?([a-zA-Z]*(?:-[a-zA-Z]+)?)([:)])")
_CODE = re.compile(r"x\{([0-9a-fA-F]+)\}|x([0-9a-fA-F]{2})|u\{([0-9a-fA-F]+)\}|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})")
_LOW_HALF = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_OCTAL = re.compile(r"0[0-7]{0,2}|[1-3][0-7]{2}")
_PROPERTY = re.compile(r"[pP](?:\{[^{}]+\}|[A-Za-z])")


def translate_whole(regex: str) -> str:
    """The expression that matches the texts that Python's re.fullmatch matches. Raises RequestError."""
    return _Translation(regex, _PYTHON).text


def translate_search(pattern: str) -> str:
    """The expression that is found in the texts in which a schema's `pattern` is found. Raises RequestError."""
    return _Translation(pattern, _ECMA).text


class _Translation:
    def __init__(self, source: str, dialect: _Dialect) -> None:
        self._source = source
        self._dialect = dialect
        self._at = 0
        self._has_dot_all = False
        pieces = []
        while self._at < len(source):
            pieces.append(self._piece())
        self.text = "".join(pieces)

    def _piece(self) -> str:
        character = self._source[self._at]
        if character == "\\":
            return self._escape()
        if character == "[":
            return self._character_class()
        if character == "(":
            return self._group()
        if character in "*+?":
            self._at += 1
            return self._repeat(character)
        if character == "{" and (found := _REPEAT.match(self._source, self._at)):
            self._at = found.end()
            low, comma, high = found[1] or "0", found[2] or found[5], found[5] if found[1] is None else found[3]
            return self._repeat(f"{{{low},{high or ''}}}" if comma else f"{{{low}}}")
        self._at += 1
        if character == ".":
            return "." if self._has_dot_all else self._dialect.dot
        return character if character in "|)^$" else self._literal(character)

    def _repeat(self, repeat: str) -> str:
        """A repetition; a lazy one matches the same whole texts."""
        if self._source[self._at : self._at + 1] == "?":
            self._at += 1
        elif self._source[self._at : self._at + 1] == "+":
            self._refuse("a possessive repetition")
        return repeat

    def _group(self) -> str:
        if not self._source.startswith("(?", self._at):
            self._at += 1
            return "(?:"
        if found := _GROUP.match(self._source, self._at):
            self._at = found.end()
            return "(?:"
        if self._source.startswith("(?#", self._at) and ")" in self._source[self._at :]:
            self._at = self._source.index(")", self._at) + 1
            return ""
        found = _FLAGS.match(self._source, self._at)
        if found is None:
            self._refuse(f"{self._source[self._at : self._at + 4]!r} (lookaround, a condition or an atomic group)")
        flags = found[1].replace("u", "")
        if set(flags) - set("is-"):
            self._refuse(f"the flags {found[1]!r}")
        self._has_dot_all |= "s" in flags
        self._at = found.end()
        if found[2] == ":":
            return f"(?{flags}:"
        return f"(?{flags})" if flags else ""

    def _escape(self) -> str:
        found = self._set(is_negated=False)
        if found is not None:
            return found
        letter = self._source[self._at + 1 : self._at + 2]
        if letter in ("A", "Z", "z"):
            self._at += 2
            return "^" if letter == "A" else "$"
        if letter in ("b", "B"):
            self._refuse(f"\\{letter} (a word boundary)")
        return self._literal(self._escaped_character())

    def _set(self, *, is_negated: bool) -> str | None:
        """The class of an escape that stands for several characters, else None. `is_negated`: it is within [^…]."""
        letter = self._source[self._at + 1 : self._at + 2]
        if found := _PROPERTY.match(self._source, self._at + 1):
            self._at = found.end()
            return f"[\\{found[0]}]"
        if letter.lower() not in ("d", "w", "s"):
            return None
        self._at += 2
        has_certain = letter.islower() != is_negated
        characters = (self._dialect.certain if has_certain else self._dialect.possible)[letter.lower()]
        return f"[{characters}]" if letter.islower() else f"[^{characters}]"

    def _escaped_character(self) -> str:
        """The one character that an escape stands for."""
        start = self._at
        letter = self._source[self._at + 1 : self._at + 2]
        self._at += 2
        if not letter:
            self._refuse_as_invalid("a backslash at the end")
        if letter in _CONTROLS:
            return _CONTROLS[letter]
        if letter == "a" and self._dialect is _PYTHON:
            return "\a"
        if letter == "c" and self._source[self._at : self._at + 1].isalpha() and self._dialect is _ECMA:
            self._at += 1
            return chr(ord(self._source[self._at - 1]) % 32)
        if found := _CODE.match(self._source, start + 1):
            self._at = found.end()
            return self._code_point(int(next(filter(None, found.groups())), 16))
        if found := _OCTAL.match(self._source, start + 1):
            self._at = found.end()
            return chr(int(found[0], 8))
        if letter.isdecimal():
            self._refuse(f"\\{letter} (a reference to a group)")
        if letter.isascii() and letter.isalpha():
            self._refuse(f"the escape \\{letter}")
        return letter

    def _code_point(self, code: int) -> str:
        if 0xD800 <= code < 0xDC00 and (low := _LOW_HALF.match(self._source, self._at)):
            self._at = low.end()
            code = 0x10000 + ((code - 0xD800) << 10) + int(low[1], 16) - 0xDC00
        if code > 0x10FFFF:
            self._refuse_as_invalid(f"the code point {code:#x}")
        return chr(code)

    def _character_class(self) -> str:
        self._at += 1
        is_negated = self._source.startswith("^", self._at)
        self._at += is_negated
        if self._source.startswith("]", self._at) and self._dialect is _ECMA:
            self._refuse(r"a class that begins with ] (readers differ; write \] inside a class)")
        items: list[str] = []
        is_first = True
        while is_first or not self._source.startswith("]", self._at):
            if self._at >= len(self._source):
                self._refuse_as_invalid("a class without its ]")
            items.append(self._class_item(is_negated=is_negated))
            is_first = False
        self._at += 1
        return f"[{'^' if is_negated else ''}{''.join(items)}]"

    def _class_item(self, *, is_negated: bool) -> str:
        if self._source.startswith("\\", self._at) and (found := self._set(is_negated=is_negated)) is not None:
            return found
        low = self._class_character()
        is_range = self._source.startswith("-", self._at) and not self._source.startswith("-]", self._at)
        if not is_range or re.match(r"-\\[dDwWsSpP]", self._source[self._at :]):
            return self._literal(low)
        self._at += 1
        high = self._class_character()
        if low > high:
            self._refuse_as_invalid(f"the range from {low!r} to {high!r}")
        return f"{self._literal(low)}-{self._literal(high)}"

    def _class_character(self) -> str:
        if self._at >= len(self._source):
            self._refuse_as_invalid("a class without its ]")
        if self._source[self._at] != "\\":
            self._at += 1
            return self._source[self._at - 1]
        if self._source.startswith("\\b", self._at):
            self._at += 2
            return "\b"
        return self._escaped_character()

    def _literal(self, character: str) -> str:
        if "\ud800" <= character <= "\udfff":
            self._refuse("half of a surrogate pair")
        if character.isascii() and not character.isalnum():
            return f"\\x{ord(character):02x}"
        return character

    def _refuse(self, what: str) -> NoReturn:
        self._raise(f"{self._dialect.name} {self._shown} has {what}", "This is not supported: write it without.")

    def _refuse_as_invalid(self, what: str) -> NoReturn:
        self._raise(f"invalid {self._dialect.name} {self._shown}: {what}", "Correct it.")

    @property
    def _shown(self) -> str:
        return repr(self._source if len(self._source) <= 60 else f"{self._source[:50]}…")

    def _raise(self, fault: str, remedy: str) -> NoReturn:
        raise RequestError(f"structured_outputs: {fault}, at character {min(self._at, len(self._source))}. {remedy}")
