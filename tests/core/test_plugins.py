"""Plug-ins are found by file name, in the package and in any folder added to its path."""

from pathlib import Path

import pytest

from outrider.attention import backends
from outrider.core import plugins
from outrider.core.errors import ConfigError
from outrider.speculation import drafters


def test_names_are_the_files_of_the_folder_sorted() -> None:
    for package in (drafters, backends):
        folder = Path(package.__path__[0])
        files = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
        assert plugins.names(package) == files
        assert files


def test_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"^drafter 'medusa' is not known\. Known: .*ngram.*\.$"):
        plugins.find(drafters, "medusa", what="drafter")


def test_file_in_a_folder_added_to_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_for_a_test.py").write_text("VALUE = 5\n")
    monkeypatch.setattr(drafters, "__path__", [*drafters.__path__, str(tmp_path)])
    assert "made_for_a_test" in plugins.names(drafters)
    assert plugins.find(drafters, "made_for_a_test", what="drafter").VALUE == 5
