"""An installed package has no zoo beside it: commands that would use it say so, and how to go on."""

import shutil
import subprocess
import sys
from pathlib import Path

import outrider

COMMANDS = """
import sys

from outrider import cli

for arguments in (["demo"], ["generate", "--prompt", "Hello"], ["info"], ["serve"]):
    sys.argv = ["outrider", *arguments]
    try:
        cli.main()
    except SystemExit as stopped:
        print(arguments[0], stopped.code, cli.__file__)
"""


def test_commands_without_a_model_name_the_missing_zoo(tmp_path: Path) -> None:
    """The package is copied to where an installer puts it."""
    installed = tmp_path / "site-packages" / "outrider"
    shutil.copytree(Path(outrider.__file__).parent, installed, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed.parent), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    file = installed / "cli" / "__init__.py"
    assert done.stdout.splitlines() == [f"{name} 2 {file}" for name in ("demo", "generate", "info", "serve")], (
        done.stderr
    )
    said = " ".join(done.stderr.split())
    message = (
        "outrider: the model zoo/tiny was not found: the zoo is a package of its own. Install it (pip install"
        " outrider-zoo), name another model, or run from a checkout of the repository."
    )
    assert said == " ".join([message] * 4)
