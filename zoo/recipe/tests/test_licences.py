"""Only packages whose licences are on the list may be trained on."""

import pytest

from outrider_recipe.licences import is_allowed

MIT = "OSI Approved :: MIT License"


@pytest.mark.parametrize(
    ("expression", "classifiers", "field", "allowed"),
    [
        ("MIT", [], None, True),
        ("BSD-3-Clause AND MIT", [], None, True),
        ("Apache-2.0 WITH LLVM-exception", [], None, True),
        ("(MIT OR GPL-2.0-only) AND ISC", [], None, True),
        (None, [MIT], "", True),
        (None, ["OSI Approved", "OSI Approved :: BSD License"], "a long licence text\n" * 20, True),
        (None, [], "Apache 2.0", True),
        ("GPL-3.0-or-later", [], None, False),
        ("MIT AND LGPL-2.1-only", [], None, False),
        ("MIT", [], "GPL", True),  # the expression decides where there is one
        ("MPL-2.0 AND MIT", [], None, False),
        ("BSD-3-Clause AND (Zlib", [], None, False),
        ("LicenseRef-Proprietary", [MIT], None, False),
        (None, ["OSI Approved :: GNU General Public License v3 (GPLv3)"], None, False),
        (None, [MIT, "OSI Approved :: GNU Lesser General Public License v2 (LGPLv2)"], None, False),
        (None, [MIT], "GPL-2.0", False),
        (None, ["Other/Proprietary License"], None, False),
        (None, [], "GPL", False),
        (None, [], None, False),
        (None, ["OSI Approved"], None, False),
    ],
)
def test_metadata_is_judged(expression: str | None, classifiers: list[str], field: str | None, allowed: bool) -> None:
    assert is_allowed(expression, classifiers=classifiers, field=field) is allowed
