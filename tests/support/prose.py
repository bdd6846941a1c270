"""The prose of a file: docstrings, comments, messages and Markdown, without code. Used to check its wording."""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HELP_ARGUMENTS = {"help", "description"}


@dataclass(frozen=True, slots=True)
class Text:
    """One piece of prose, with code in backticks left out and its lines joined."""

    line: int
    """Number of its first line, from 1."""
    words: str
    begins_docstring: bool = False
    """True for a docstring or a help text, which must begin with the thing that it describes."""


def prose_of(path: Path, *, has_messages: bool) -> list[Text]:
    """Everything in a file that a person reads. `has_messages`: string constants of a Python file count as well."""
    text = path.read_text()
    if path.suffix == ".py":
        return sorted(python_prose(text, has_messages=has_messages), key=lambda found: found.line)
    if path.suffix == ".md":
        return list(markdown_prose(text))
    return [Text(number, line.lstrip("# ")) for number, line in enumerate(text.splitlines(), 1) if "#" in line[:1]]


def python_prose(text: str, *, has_messages: bool) -> Iterator[Text]:
    nodes = list(ast.walk(ast.parse(text)))
    docstrings = list(docstrings_of(nodes))
    for constant in docstrings:
        yield Text(constant.lineno, plain(str(constant.value)), True)
    if has_messages:
        yield from messages(nodes, {id(constant) for constant in docstrings})
    if "#" in text:
        yield from comments(text)


def docstrings_of(nodes: Iterable[ast.AST]) -> Iterator[ast.Constant]:
    """Docstrings of modules, classes, functions and attributes: each is an expression of its own."""
    for node in nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def messages(nodes: Sequence[ast.AST], docstrings: set[int]) -> Iterator[Text]:
    """String constants of several words; the values in an f-string become {}."""
    helps = {id(word.value) for word in nodes if isinstance(word, ast.keyword) and word.arg in HELP_ARGUMENTS}
    parts: set[int] = set()
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts.update(id(part) for part in ast.walk(node) if isinstance(part, ast.Constant))
            words = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield Text(node.lineno, plain(words), id(node) in helps)
    for node in nodes:
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in parts | docstrings:
            continue
        if " " in node.value.strip():
            yield Text(node.lineno, plain(node.value), id(node) in helps)


def comments(text: str) -> Iterator[Text]:
    """Comments; those on consecutive lines are one text, so that a phrase may cross a line end."""
    first, last, words = 0, -1, ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, comment = token.start[0], token.string.lstrip("# ")
        if line == last + 1 and not token.line[: token.start[1]].strip():
            words = f"{words} {comment}"
        else:
            if words:
                yield Text(first, plain(words))
            first, words = line, comment
        last = line
    if words:
        yield Text(first, plain(words))


def markdown_prose(text: str) -> Iterator[Text]:
    """Paragraphs, list items, headings and table rows; blocks of code and quotations are left out."""
    first, lines, in_code = 0, [], False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        begins = bool(re.match(r"\s*([-*#|>]|\d+\.) ?", line)) and not re.match(r"\s*\*\*", line)
        if lines and (in_code or begins or not line.strip()):
            yield Text(first, plain(" ".join(lines)))
            lines = []
        if line.strip() and not in_code and not line.startswith((">", "    ")) and "```" not in line:
            first = first if lines else number
            lines.append(line.strip().lstrip("-*#| "))


def plain(words: str) -> str:
    """Words on one line, without the code in backticks."""
    return " ".join(re.sub(r"`[^`]*`", "``", words).split())
