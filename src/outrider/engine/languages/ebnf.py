"""Grammars in EBNF, llama.cpp's form, written so that llguidance's converter keeps every character of them.

The converter takes no escape of a code point beyond \\x, and in its regular expressions && and -- have a meaning of
their own. Here each text and class is written in the one form that means the same to all.
"""

import re

from outrider.core.errors import RequestError

_PIECE = re.compile(
    r"""(?P<comment>\#[^\r\n]*)|(?P<text>"(?:\\.|[^"\\])*")|(?P<class>\[\^?(?:\\.|[^\]\\])*\])|(?P<rest>[^\#"\[]+|["\[])""",
    re.VERBOSE | re.DOTALL,
)
_CHARACTER = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))|(.)", re.DOTALL)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t"}
_NAME = re.compile(r"^[ \t]*([A-Za-z0-9_-]+)\s*::=", re.MULTILINE)


def is_ebnf(grammar: str) -> bool:
    """True for EBNF, false for Lark's form."""
    return "::=" in grammar and re.search(r"(?m)^\s*(%llguidance\b|start\s*:(?!:=))", grammar) is None


def plain_ebnf(grammar: str) -> str:
    """The grammar with each text and class in plain form. Raises RequestError."""
    pieces = [(found.lastgroup, found[0]) for found in _PIECE.finditer(grammar)]
    names = _NAME.findall("".join(text for kind, text in pieces if kind == "rest"))
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RequestError(f"structured_outputs: the grammar has two rules named {twice!r}. Rename one.")
    return "".join(_plain(kind, text) for kind, text in pieces if kind != "comment")


def _plain(kind: str | None, text: str) -> str:
    if kind == "text":
        return '"' + "".join(_in_text(character) for character, _ in _characters(text[1:-1])) + '"'
    if kind != "class":
        return text
    start = "[^" if text.startswith("[^") else "["
    content = "".join(
        "-" if character == "-" and not is_escaped else _in_class(character)
        for character, is_escaped in _characters(text[len(start) : -1])
    )
    if content.startswith("-"):
        content = _in_class("-") + content[1:]
    if content.endswith("-"):
        content = content[:-1] + _in_class("-")
    if not content:
        raise RequestError(f"structured_outputs: the grammar has the class {text}, which is empty. Correct it.")
    return f"{start}{content}]"


def _characters(text: str) -> list[tuple[str, bool]]:
    """The characters of a text or class, and whether each was escaped."""
    found = []
    for match in _CHARACTER.finditer(text):
        code = match[1] or match[2] or match[3]
        if code is not None:
            character = _character(int(code, 16))
        elif match[4] is not None:
            character = _escaped(match[4])
        else:
            character = match[5]
        found.append((character, match[5] is None))
    return found


def _character(code: int) -> str:
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise RequestError(
            f"structured_outputs: the grammar has the code point {code:#x}, not a character. Correct it."
        )
    return chr(code)


def _escaped(letter: str) -> str:
    if letter in _CONTROLS:
        return _CONTROLS[letter]
    if letter.isalnum():
        raise RequestError(
            f"structured_outputs: the grammar has the escape \\{letter}. Use \\n, \\r, \\t, \\x, \\u or \\U."
        )
    return letter


def _in_text(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return f"\\x{ord(character):02x}" if character < " " or character == "\x7f" else character


def _in_class(character: str) -> str:
    is_plain = not character.isascii() or character.isalnum()
    return character if is_plain else f"\\x{ord(character):02x}"
