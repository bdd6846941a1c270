"""Prose is in plain English: no docstring begins oddly, and no phrase of the word list comes back.

Checked are docstrings and comments of all Python files, messages and help texts outside of tests, and all Markdown but
the history in benchmarks/log.md. `word_list.py` has the phrases; a failure names the file, the line and plain words.
"""

import re
from pathlib import Path

import pytest

from tests.structure.word_list import ODD_BEGINNINGS, PHRASES, Phrase
from tests.support.prose import Text, markdown_prose, prose_of, python_prose

ROOT = Path(__file__).parents[2]
FOLDERS = ["src", "zoo", "benchmarks", "examples", "tests", "docs", ".github"]
SUFFIXES = {".py", ".md", ".toml", ".yml"}
HISTORY = {"benchmarks/log.md"}
BEGINS_ODDLY = re.compile(ODD_BEGINNINGS)
ODD_PHRASES = [(re.compile(phrase.expression, re.IGNORECASE), phrase.advice) for phrase in PHRASES]


def files() -> list[str]:
    """Every file with prose, from the root."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")] + list(ROOT.glob("*"))
    names = {path.relative_to(ROOT).as_posix() for path in found if path.suffix in SUFFIXES or path.name == "Makefile"}
    return sorted(names - HISTORY)


def has_messages(name: str) -> bool:
    """False for tests, whose strings are requests, prompts and faults put in on purpose."""
    return "tests" not in Path(name).parts


def faults(text: Text) -> list[str]:
    """Odd wording in a text, with the advice."""
    found = []
    if text.begins_docstring and (match := BEGINS_ODDLY.match(text.words)):
        found.append(f'it begins with "{match[0]}". Begin with the thing itself or a verb')
    for phrase, advice in ODD_PHRASES:
        if match := phrase.search(text.words):
            found.append(f'"{match[0]}". {advice}')
    return found


def test_prose_is_plain() -> None:
    odd = [
        f"{name}:{text.line}: {fault}: {text.words[:200]}"
        for name in files()
        for text in prose_of(ROOT / name, has_messages=has_messages(name))
        for fault in faults(text)
    ]
    assert not odd, "\n".join(odd)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ('"""Of a hybrid."""', 1),
        ('class A:\n    """An option."""\n\n    b: int\n    """Most tokens of one request."""', 5),
        ('def f():\n    """What the model thinks."""', 2),
        ('option = Option(help="Whether it runs.")', 1),
        ('raise ValueError(f"port={port!r} is no port. Use 0 to 65535.")', 1),
        ('x = 1  # made anew for each step', 1),
        ('# one line, and the next: a block that belongs to\n# nobody', 1),
        ('error = "the engine has died before it stood"', 1),
    ],
)  # fmt: skip
def test_odd_words_in_a_program_are_seen(source: str, line: int) -> None:
    assert {text.line for text in python_prose(source, has_messages=True) if faults(text)} == {line}


def test_odd_words_in_a_page_are_seen() -> None:
    page = "# Title\n\nA list:\n\n- plain\n- the state stands\n  at 16\n\n```\nstands in code\n```\nIn `stands ` too.\n"
    assert [text.line for text in markdown_prose(page) if faults(text)] == [6]


def test_plain_words_pass() -> None:
    source = '"""The row of a request; there is no tokenizer."""\n# R stands for rows\nx = "It is no longer used."'
    assert not [fault for text in python_prose(source, has_messages=True) for fault in faults(text)]


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase.expression)
def test_each_phrase_is_found_in_its_example(phrase: Phrase) -> None:
    assert any(phrase.advice in fault for fault in faults(Text(1, phrase.example)))
