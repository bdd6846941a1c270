"""The syntax tree of a source file, parsed once for all tests of one process."""

import ast
from functools import cache
from pathlib import Path


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a Python file."""
    return tuple(ast.walk(ast.parse(path.read_text())))
