"""Decides from a package's own metadata whether its source may be trained on. Knows nothing of files.

The list is a list of what is allowed; everything else, named or not, is refused.
"""

import re
from collections.abc import Sequence

# SPDX names, in lower case.
ALLOWED_EXPRESSIONS = frozenset(
    {
        "mit",
        "mit-0",
        "0bsd",
        "bsd-1-clause",
        "bsd-2-clause",
        "bsd-3-clause",
        "apache-2.0",
        "apache-2.0 with llvm-exception",
        "isc",
        "psf-2.0",
        "python-2.0",
    }
)
ALLOWED_CLASSIFIERS = frozenset(
    {
        "OSI Approved :: MIT License",
        "OSI Approved :: BSD License",
        "OSI Approved :: Apache Software License",
        "OSI Approved :: ISC License (ISCL)",
        "OSI Approved :: Python Software Foundation License",
    }
)
# The free-text field as found in the wild, in lower case.
ALLOWED_FIELDS = frozenset(
    [
        "mit",
        "mit license",
        "the mit license",
        "bsd",
        "bsd license",
        "new bsd",
        "new bsd license",
        "modified bsd",
        "bsd-2-clause",
        "bsd 2-clause",
        "bsd-3-clause",
        "bsd 3-clause",
        "bsd 3 clause",
        "bsd-3",
        "3-clause bsd",
        "3-clause bsd license",
        "bsd 3-clause license",
        "bsd-3-clause license",
        "apache",
        "apache 2",
        "apache 2.0",
        "apache-2.0",
        "apache2.0",
        "apache-2",
        "apache license",
        "apache 2.0 license",
        "apache license 2.0",
        "apache license, version 2.0",
        "apache software license",
        "apache software license 2.0",
        "the apache license, version 2.0",
        "isc",
        "isc license",
        "psf",
        "psf-2.0",
        "python software foundation license",
        "mit or apache-2.0",
        "apache-2.0 or mit",
    ]
)
LONGEST_FIELD = 80  # a longer free-text field is a whole licence text, and then only the classifiers speak


def is_allowed(expression: str | None, *, classifiers: Sequence[str], field: str | None) -> bool:
    """True if every statement that the metadata makes is on the lists above, and it makes at least one."""
    if expression:
        return is_expression_allowed(expression)
    stated = [text for text in classifiers if text != "OSI Approved"]
    if any(text not in ALLOWED_CLASSIFIERS for text in stated):
        return False
    short = (field or "").strip().lower()
    if short and len(short) <= LONGEST_FIELD and "\n" not in short:
        return short in ALLOWED_FIELDS
    return bool(stated)


def is_expression_allowed(expression: str) -> bool:
    """SPDX: every term of an AND, at least one term of an OR."""
    words = re.findall(r"\(|\)|[^\s()]+", expression.lower())
    allowed, rest = _alternatives(words)
    return allowed and not rest


def _alternatives(words: list[str]) -> tuple[bool, list[str]]:
    allowed, rest = _conjunction(words)
    while rest[:1] == ["or"]:
        other, rest = _conjunction(rest[1:])
        allowed = allowed or other
    return allowed, rest


def _conjunction(words: list[str]) -> tuple[bool, list[str]]:
    allowed, rest = _term(words)
    while rest[:1] == ["and"]:
        other, rest = _term(rest[1:])
        allowed = allowed and other
    return allowed, rest


def _term(words: list[str]) -> tuple[bool, list[str]]:
    if not words:
        return False, []
    if words[0] == "(":
        allowed, rest = _alternatives(words[1:])
        return (allowed, rest[1:]) if rest[:1] == [")"] else (False, [])
    if words[1:2] == ["with"]:
        return " ".join(words[:3]) in ALLOWED_EXPRESSIONS, words[3:]
    return words[0] in ALLOWED_EXPRESSIONS, words[1:]
