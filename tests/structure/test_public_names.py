"""The public names of `outrider` are imported on first use; its core and scheduler need no device library."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import outrider

SOURCE = Path(outrider.__file__).parent
LIGHT = ("core", "scheduler")
HEAVY = ("torch", "transformers", "triton", "numpy", "safetensors", "tokenizers")

CHECK = """
import importlib
import sys

import outrider

for module in sys.argv[1].split():
    importlib.import_module(module)
    heavy = [name for name in sys.argv[2].split() if name in sys.modules]
    assert not heavy, f"{module} imports {heavy}"
"""


def modules_of(folder: str) -> list[str]:
    paths = sorted((SOURCE / folder).glob("*.py"))
    return [f"outrider.{folder}.{path.stem}" for path in paths if path.stem != "__init__"]


def test_core_and_scheduler_import_no_device_library() -> None:
    modules = [module for folder in LIGHT for module in modules_of(folder)]
    assert "outrider.core.errors" in modules
    command = [sys.executable, "-c", CHECK, " ".join(modules), " ".join(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_resolves_in_a_new_process() -> None:
    code = "from outrider import *; import outrider; print(all(name in globals() for name in outrider.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


@pytest.mark.parametrize("name", outrider.__all__)
def test_public_name_is_the_object_of_its_module(name: str) -> None:
    module = importlib.import_module(outrider._MODULE_OF[name])
    assert getattr(outrider, name) is getattr(module, name)
    assert getattr(outrider, name).__module__ == module.__name__
    assert name in dir(outrider)


def test_type_checkers_see_the_names_that_a_program_gets() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    branches = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for branch in branches for node in branch.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert seen == outrider._MODULE_OF
    assert sorted(seen) == sorted(outrider.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'outrider' has no attribute 'Engine'"):
        outrider.Engine  # noqa: B018
