"""Finds Python source on this machine that may be trained on: the standard library and allowed packages.

Decides by package metadata (`licences`) and by path; never opens a file. Paths are reported relative to
the package, so that a hash of them is the same on every machine.
"""

import platform
import sysconfig
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import Distribution, distributions
from pathlib import Path

from outrider_recipe.licences import is_allowed

# Folders that hold other people's code under other licences, or no code at all.
SKIPPED_FOLDERS = frozenset(
    [
        "_vendor",
        "_vendored",
        "vendor",
        "vendored",
        "vendors",
        "third_party",
        "thirdparty",
        "_third_party",
        "extern",
        "externals",
        "_extern",
        "_externals",
        "_distutils_hack",
        "site-packages",
        "dist-packages",
        "__pycache__",
        "lib2to3",
        "idlelib",
        "turtledemo",
        "pybind11_tests",
    ]
)
TEST_FOLDERS = frozenset(["test", "tests", "testing", "_tests"])
TEST_SHARE = 3  # one test file in three is kept


@dataclass(frozen=True, slots=True)
class Source:
    package: str
    version: str
    licence: str
    files: tuple[tuple[str, Path], ...]  # (path inside the package, where it lies)


def path_number(package: str, path: str) -> int:
    """A fixed number below 2**32 for a file, whatever machine it is on."""
    return int.from_bytes(blake2b(f"{package}/{path}".encode(), digest_size=4).digest(), "big")


def standard_library() -> Source:
    root = Path(sysconfig.get_paths()["stdlib"])
    found = [(path.relative_to(root).as_posix(), path) for path in sorted(root.rglob("*.py"))]
    files = tuple((name, path) for name, path in found if _is_wanted("python", name))
    return Source("python", platform.python_version(), "PSF-2.0", files)


def allowed_packages() -> tuple[list[Source], list[tuple[str, str]]]:
    """Allowed packages with their files, and (name, licence) of those refused; each sorted by name."""
    allowed: dict[str, Source] = {}
    refused: dict[str, str] = {}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if not name or name in allowed:
            continue
        expression, classifiers, field = _licence(distribution)
        licence = expression or "; ".join(classifiers) or (field or "").strip()[:60]
        if not is_allowed(expression, classifiers=classifiers, field=field):
            refused[name] = " ".join(licence.split())
            continue
        files = tuple(
            (path.as_posix(), Path(str(distribution.locate_file(path))))
            for path in distribution.files or ()
            if path.suffix == ".py" and ".." not in path.parts and _is_wanted(name, path.as_posix())
        )
        if files:
            allowed[name] = Source(name, distribution.version, licence, files)
    return [allowed[name] for name in sorted(allowed)], sorted(refused.items())


def _licence(distribution: Distribution) -> tuple[str | None, list[str], str | None]:
    metadata = distribution.metadata
    prefix = "License :: "
    stated = [text.removeprefix(prefix) for text in metadata.get_all("Classifier") or () if text.startswith(prefix)]
    expression, field = ((metadata.get_all(name) or [None])[0] for name in ("License-Expression", "License"))
    return expression, stated, field


def _is_wanted(package: str, path: str) -> bool:
    folders = path.split("/")[:-1]
    name = path.split("/")[-1]
    if SKIPPED_FOLDERS.intersection(folders):
        return False
    is_test = bool(TEST_FOLDERS.intersection(folders)) or name.startswith("test_") or name.endswith("_test.py")
    return not is_test or path_number(package, f"test:{path}") % TEST_SHARE == 0
