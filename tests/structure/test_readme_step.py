"""The step that the README shows is that of the engine."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def without_spaces(code: str) -> str:
    return re.sub(r"\s", "", code)


def test_the_step_is_that_of_the_engine() -> None:
    """Each line, up to its "...", is in `Step.forward`, then in `Step.sample`, in this order."""
    readme = (ROOT / "README.md").read_text()
    (program,) = re.findall(r"^## The step\n\n```python\n(.*?)```", readme, flags=re.DOTALL | re.MULTILINE)
    text = (ROOT / "src/outrider/runtime/step.py").read_text()
    methods = {node.name: node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
    parts = [ast.get_source_segment(text, methods[name]) or "" for name in ("forward", "sample")]
    source = without_spaces("".join(parts))
    at = 0
    for line in program.splitlines():
        code = without_spaces(line.split("  #")[0].partition("...")[0]).rstrip(",")
        found = source.find(code, at)
        assert found >= 0, f"{line!r} is not in the step after the lines before it"
        at = found + len(code)
    assert at > 0
