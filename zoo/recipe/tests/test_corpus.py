"""Cleaning and splitting of source files."""

import ast
import json
from pathlib import Path

import pytest

from outrider_recipe import corpus
from outrider_recipe.instructions import exercises_in
from outrider_recipe.sources import Source, path_number

BODY = "\n".join(f"value_number_{index} = compute_something({index})" for index in range(20)) + "\n"


def test_licence_block_is_cut_and_code_is_kept() -> None:
    text = "#!/usr/bin/env python\n# Copyright 2020 Somebody\n# All rights reserved\n\nimport os\r\nx = 1   \n"
    assert corpus.clean(text) == "import os\nx = 1\n"
    assert corpus.clean("# What this does\nimport os\n") == "# What this does\nimport os\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BODY, ""),
        ("x = 1\n", "size"),
        ("# Licensed under the GNU General Public License\n" + BODY, "licence named in file"),
        ("# This file is auto-generated\n" + BODY, "generated"),
        (BODY + "x = '" + "a" * 400 + "'\n", "long lines"),
        (BODY + "x = '<|im_end|>'\n", "holds special tokens"),
        ("# a comment about nothing at all\n" * 20, "little code"),
        ("\n".join("1234567890, 1234567890," for _ in range(40)), "numbers"),
    ],
)
def test_files_are_dropped_for_a_reason(text: str, reason: str) -> None:
    assert corpus.why_dropped(text.encode()) == reason
    assert corpus.why_dropped(b"\xff\xfe" + BODY.encode()) == "not utf-8"


def test_fingerprint_ignores_comments_and_blanks() -> None:
    assert corpus.fingerprint("x = 1  # one\n\ny = 2\n") == corpus.fingerprint("x=1\ny = 2")
    assert corpus.fingerprint("x = 1\n") != corpus.fingerprint("x = 2\n")


def _write(folder: Path, name: str, text: str) -> tuple[str, Path]:
    path = folder / name
    path.write_text(text)
    return name, path


def test_copies_cannot_leak_into_the_held_out_side(tmp_path: Path) -> None:
    held_out = [f"m{i}.py" for i in range(400) if path_number("p", f"m{i}.py") % corpus.HELD_OUT_SHARE == 0]
    trained = [f"m{i}.py" for i in range(400) if f"m{i}.py" not in held_out]
    copied, fresh = held_out[0], held_out[1]
    files = [
        _write(tmp_path, copied, BODY + "last_line_that_differs = True\n"),
        _write(tmp_path, fresh, BODY.replace("value_number", "other_thing").replace("compute", "derive")),
        _write(tmp_path, trained[0], BODY),
        _write(tmp_path, trained[1], BODY + "# a copy with a comment\n"),
    ]
    source = Source("p", "1", "MIT", tuple(files))
    built = corpus.build([source], package_limit=10**9, workers=1, say=lambda text: None)
    assert [document.path for document in built.held_out] == [fresh]
    assert len(built.training) == 1 and built.dropped["duplicate"] == 1
    assert built.dropped["held out but found in training"] == 1
    json.dumps(built.record())


def test_exercises_come_from_documented_functions() -> None:
    text = (
        'def area(width, height=1):\n    """Return the area of a rectangle."""\n'
        "    result = width * height\n    return result\n"
    )
    (exercise,) = exercises_in(ast.parse(text), text)
    assert "Return the area of a rectangle." in exercise.request
    assert exercise.reply.startswith("```python\ndef area(width, height=1):\n    result")
