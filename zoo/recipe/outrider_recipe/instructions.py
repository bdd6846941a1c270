"""Short exercises out of Python files: "write a function that ..." and the function itself.

The request is the first line of a function's docstring, the reply its source without the docstring.
"""

import ast
import textwrap
from dataclasses import dataclass
from hashlib import blake2b

LONGEST_FUNCTION = 30  # lines
REQUESTS = (
    "Write a Python function `{signature}`. {purpose}",
    "Write the function `{signature}` in Python. It should do this: {purpose}",
    "{purpose} Write it as the Python function `{signature}`.",
    "Implement `{signature}` in Python. {purpose}",
    "Write a function named `{name}`. {purpose}",
    "Write a Python function that does the following. {purpose}",
)


@dataclass(frozen=True, slots=True)
class Exercise:
    request: str
    reply: str


def exercises_in(tree: ast.Module, text: str) -> tuple[Exercise, ...]:
    """One exercise for each short, documented, undecorated function at the top level of a file."""
    lines = text.split("\n")
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            exercise = _exercise(node, lines)
            if exercise is not None:
                found.append(exercise)
    return tuple(found)


def _exercise(node: ast.FunctionDef, lines: list[str]) -> Exercise | None:
    documentation = ast.get_docstring(node)
    if documentation is None or len(node.body) < 2 or node.end_lineno is None:
        return None
    purpose = documentation.strip().split("\n")[0].strip()
    first = node.body[0]
    assert first.end_lineno is not None
    size = node.end_lineno - node.lineno - (first.end_lineno - first.lineno)
    if not 15 <= len(purpose) <= 140 or not purpose.isascii() or not 2 <= size <= LONGEST_FUNCTION:
        return None
    if first.lineno == node.lineno:
        return None
    if purpose[-1] not in ".!?":
        purpose += "."
    kept = lines[node.lineno - 1 : first.lineno - 1] + lines[first.end_lineno : node.end_lineno]
    source = textwrap.dedent("\n".join(kept)).strip("\n")
    signature = f"{node.name}({ast.unparse(node.args)})"
    if len(signature) > 100:
        return None
    choice = blake2b(signature.encode(), digest_size=2).digest()[0] % len(REQUESTS)
    request = REQUESTS[choice].format(signature=signature, purpose=purpose, name=node.name)
    return Exercise(request, f"```python\n{source}\n```")
