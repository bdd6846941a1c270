"""Data files of the word problems: what their readers understand, and that mistakes are named."""

import tomllib
from pathlib import Path

import pytest

from outrider_recipe.arithmetic import lists, stories

RECIPE = Path(__file__).parents[1]
LINES = """== gave_away
a 2..90, c 10..90/10, s = a * c, c < a
total r = a + c
lose u = r - c
1> {A} has {a} {Xs}.
1> There are {a} {Xs}
    in a {k}.
2> How many are left?""".splitlines()


def changed(old: str, new: str) -> list[str]:
    text = "\n".join(LINES)
    assert old in text
    return text.replace(old, new).splitlines()


def test_a_family_is_read() -> None:
    (family,) = stories.parse(LINES, where="some.txt")
    assert family.name == "gave_away"
    assert family.ranges == {"a": (2, 90, 1), "c": (10, 90, 10)}
    assert family.derived == (stories.Rule("s", "a", "*", "c"),)
    assert family.conditions == (("c", "a"),)
    assert family.steps == (stories.Rule("r", "a", "+", "c", "total"), stories.Rule("u", "r", "-", "c", "lose"))
    assert family.parts == (("{A} has {a} {Xs}.", "There are {a} {Xs} in a {k}."), ("How many are left?",))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("== gave_away\n", "", "some.txt: 'a 2..90, c 10..90/10, s = a * c, c < a' belongs to no family"),
        ("total r", "sum r", "some.txt: family 'gave_away': 'sum r = a + c': 'sum' is not a kind of step with '+'"),
        ("a + c", "a - c", "'total r = a - c': 'total' is not a kind of step with '-'"),
        ("a + c", "a + ", "'total r = a +' is not of the form `kind name = left operator right`"),
        ("total r", "r", "'r = a + c' is not of the form `kind name = left operator right`"),
        ("2..90", "2.90", "'a 2.90' is not of the form `a 2..90, s = a * b, b < a`"),
        ("c < a", "c > a", "'c > a' is not of the form"),
        ("a 2..90", "x 2..90", "its numbers ['x'] are names of slots. Rename them."),
        ("lose u = r - c\n1> ", "lose u = r - c\n1 ", "'1 {A} has {a} {Xs}.' is not of the form"),
        ("\n" + "\n".join(LINES[4:]), "", "it needs at least one step and one telling"),
        ("\n" + "\n".join(LINES[1:]), "", "it has no numbers. Write them below its name."),
    ],
)
def test_a_mistake_in_a_story_is_named(old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        stories.parse([line.rstrip() for line in changed(old, new)], where="some.txt")
    assert message in str(error.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lists, "FOLDER", tmp_path)
    return tmp_path


def test_lists_are_read(folder: Path) -> None:
    (folder / "read.txt").write_text(
        "# a comment\n[first]\none two  \n#1 three\n\n# another\n[second]\n[third]\nfour\n"
    )
    assert lists.read_lines("read.txt", "first") == ["one two", "#1 three"]
    assert lists.read_words("read.txt", "first") == ["one", "two", "#1", "three"]
    assert lists.read_lines("read.txt", "second") == []
    assert lists.read_lines("read.txt", "third") == ["four"]
    with pytest.raises(ValueError, match=r"read\.txt has no list \[fourth\]\. It has first, second, third\."):
        lists.read_lines("read.txt", "fourth")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("twice.txt", "[a]\nx\n[a]\ny\n", r"twice\.txt: list \[a\] is defined twice\. Join the two\."),
        ("headless.txt", "x\n[a]\n", r"headless\.txt: 'x' belongs to no list\. Put a \[name\] above it\."),
    ],
)
def test_a_mistake_in_a_list_is_named(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        lists.read_lines(name, "a")


def test_every_data_file_is_packed() -> None:
    """An installed recipe has the data files that a checkout has."""
    project = tomllib.loads((RECIPE / "pyproject.toml").read_text())
    package = RECIPE / "outrider_recipe"
    packed = {
        path
        for name, patterns in project["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in (RECIPE / name.replace(".", "/")).glob(pattern)
    }
    there = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert there and packed == there
