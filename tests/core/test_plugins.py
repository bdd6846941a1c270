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


def test_module_path_is_imported_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_elsewhere").mkdir()
    (tmp_path / "made_elsewhere" / "plugin.py").write_text("VALUE = 6\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert plugins.find_or_import(drafters, "made_elsewhere.plugin", what="drafter").VALUE == 6
    assert plugins.find_or_import(drafters, "ngram", what="drafter").__name__ == "outrider.speculation.drafters.ngram"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("medusa", r"^drafter 'medusa' is not known\. Known: .*ngram\. Name a module of your own by its full path"),
        ("nowhere.medusa", r"^drafter 'nowhere\.medusa' cannot be imported: No module named 'nowhere'\. Install its"),
        ("outrider.medusa", r"^drafter 'outrider\.medusa' cannot be imported: No module named 'outrider\.medusa'"),
        ("json.tool.medusa", r"'json\.tool' is not a package\. Install its package"),
        (".medusa", "is not a module path"),
        ("my-package.medusa", "is not a module path"),
        ("drafters/medusa.py", "is not a module path"),
    ],
)
def test_module_that_cannot_be_imported_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plugins.find_or_import(drafters, name, what="drafter")


def test_what_a_found_module_lacks_is_not_blamed_on_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more").mkdir()
    (tmp_path / "needs_more" / "plugin.py").write_text("import a_package_that_is_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_installed"):
        plugins.find_or_import(drafters, "needs_more.plugin", what="drafter")
