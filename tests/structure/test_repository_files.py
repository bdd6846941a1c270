"""Files that hosting sites look for: issue forms that they can read."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*_*.yml"))
KINDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


def test_there_is_a_form_for_bugs_and_one_for_features():
    assert [path.stem for path in FORMS] == ["bug_report", "feature_request", "verify_report"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_well_formed(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"] and form["description"]
    assert {entry["type"] for entry in form["body"]} <= KINDS
    fields = [entry for entry in form["body"] if entry["type"] != "markdown"]
    assert len({entry["id"] for entry in fields}) == len(fields) > 0
    for entry in fields:
        assert entry["attributes"]["label"]
        assert all(isinstance(option, str) for option in entry["attributes"].get("options", []))
    assert any(entry.get("validations", {}).get("required") for entry in fields)


def test_a_bug_report_asks_for_what_tokens_depend_on():
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug_report.yml").read_text())
    (info,) = (entry for entry in form["body"] if entry.get("id") == "info")
    assert "outrider info" in info["attributes"]["label"] and info["validations"]["required"]
