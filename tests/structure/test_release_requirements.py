"""Requirements of a release: every file has its hash, or none is written."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / ".ci" / "release_requirements.py"


def requirements(report: dict[str, Any]) -> str:
    spec = importlib.util.spec_from_file_location("release_requirements", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.requirements(report)


def entry(name: str, **source: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "version": "1.2"}, "download_info": source}


HASHED = {"archive_info": {"hashes": {"sha256": "ab" * 32}}}


def test_each_file_has_its_hash() -> None:
    own = entry("outrider", url="file:///src", dir_info={})
    others = [entry(name, url=f"https://index/{name}.whl", **HASHED) for name in "Ba"]
    report = {"install": [*others, own]}
    lines = [f"{name}==1.2 --hash=sha256:{'ab' * 32}" for name in "ab"]
    assert requirements(report).splitlines() == lines


@pytest.mark.parametrize(
    "source",
    [
        {"url": "https://index/a.whl"},
        {"url": "https://index/a.whl", "archive_info": {"hashes": {"md5": "0"}}},
        {"url": "http://index/a.whl", **HASHED},
        {"url": "file:///a.whl", **HASHED},
        {"url": "https://host/a.git", "vcs_info": {}},
    ],
)
def test_a_file_without_a_hash_is_an_error(source: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a==1\.2 has no sha256"):
        requirements({"install": [entry("a", **source)]})


def test_a_report_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="installs nothing"):
        requirements({"install": []})
