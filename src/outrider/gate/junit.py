"""Report of a check as JUnit XML for CI systems: one test case per bound, one for the equality of integers."""

import xml.etree.ElementTree as ET

from outrider.gate.check import CheckResult
from outrider.gate.report import line


def junit(result: CheckResult) -> str:
    """The document."""
    verdict = result.verdict
    suite = ET.Element("testsuite", name=f"outrider gate: {result.title}")
    properties = ET.SubElement(suite, "properties")
    facts = {
        **{f"platform.{name}": value for name, value in result.now.key.items()},
        **{f"version.{name}": value for name, value in result.now.versions.items()},
        "entry": result.entry.name,
        "mode": "exact" if verdict.is_exact else "statistical",
        "alarm_level": str(verdict.alarm_level),
        **{f"note.{index}": note for index, note in enumerate(result.notes)},
        **{f"mark.{mark}": "true" for mark in result.baseline.settings.marks},
    }
    for name, value in facts.items():
        ET.SubElement(properties, "property", name=name, value=value)
    failures = 0
    if verdict.is_exact:
        case = ET.SubElement(suite, "testcase", classname=result.title, name="integers and digests equal")
        if verdict.differences:
            failures += 1
            failure = ET.SubElement(case, "failure", message=verdict.cause)
            failure.text = "\n".join(line(entry) for entry in verdict.differences)
    for test in () if verdict.is_exact else verdict.tests:
        case = ET.SubElement(suite, "testcase", classname=result.title, name=test.name)
        if not test.passed:
            failures += 1
            upper = f" to {test.upper_bound:.6f}" if test.upper_bound is not None else " or more"
            message = f"{test.now:.6f} is not {test.lower_bound:.6f}{upper} (baseline {test.baseline:.6f})"
            ET.SubElement(case, "failure", message=message)
    suite.set("tests", str(1 if verdict.is_exact else len(verdict.tests)))
    suite.set("failures", str(failures))
    return _document(suite)


def junit_not_run(title: str, reason: str) -> str:
    """Document of a gate that could not run: skipped, with the reason."""
    suite = ET.Element("testsuite", name=f"outrider gate: {title}", tests="1", failures="0", skipped="1")
    case = ET.SubElement(suite, "testcase", classname=title, name="could not run")
    ET.SubElement(case, "skipped", message=reason)
    return _document(suite)


def _document(suite: ET.Element) -> str:
    ET.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"
