"""Reports for a person and for CI: one screen, JUnit XML, an HTML file that needs nothing else."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from outrider.gate.baseline import Baseline, Settings
from outrider.gate.check import check
from outrider.gate.html import html
from outrider.gate.junit import junit, junit_not_run
from outrider.gate.plots import Bar, Series, bar_chart, ticks
from outrider.gate.report import screen

from .samples_made_here import KEY, measurement, sample

SETTINGS = Settings(
    model="zoo/tiny",
    speculative_config={"method": "eagle3"},
    num_speculative_tokens=3,
    prompts="p.jsonl",
    prompts_digest="0",
    marks=["slow"],
)
GOOD = [
    sample(str(index), steps=(0, 3, index % 4, 2, 3), category=("code", "math <1>")[index % 2]) for index in range(12)
]
BAD = [replace(sample(entry.prompt, steps=(0, 1, 0, 0, 1)), category=entry.category) for entry in GOOD]
ELSEWHERE = {**KEY, "capability": "NEON"}


def result(now, key=KEY):
    baseline = Baseline(settings=SETTINGS, entries=()).with_entry(measurement(GOOD))
    return check(baseline, measurement(now, key=key), title="zoo")


def shown(found):
    console = Console(width=112, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(screen(found))
    return console.export_text()


def test_a_check_fits_one_screen():
    for found in (result(GOOD), result(BAD), result(BAD, ELSEWHERE)):
        lines = shown(found).splitlines()
        assert len(lines) <= 30 and max(map(len, lines)) <= 112


def test_the_screen_says_what_was_compared_and_what_came_out():
    text = shown(result(GOOD))
    assert "PASS: every integer and digest of 12 requests equals the baseline" in text
    assert "zoo/tiny with eagle3, k = 3" in text and "capability AVX2" in text
    text = shown(result(BAD))
    assert "REGRESSION" in text and "the target changed" in text and "and 6 more requests differ" in text
    text = " ".join(shown(result(BAD, ELSEWHERE)).split())
    assert "no entry of its own" in text and "capability NEON instead of AVX2" in text
    assert "FAIL" in text and "alarm level 1.0% over 5 tests" in text


def test_junit_of_a_pass_a_regression_and_a_run_that_was_not():
    suite = ET.fromstring(junit(result(GOOD)))
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    suite = ET.fromstring(junit(result(BAD)))
    assert suite.get("failures") == "1" and "token id" in suite.find(".//failure").text
    suite = ET.fromstring(junit(result(BAD, ELSEWHERE)))
    assert (suite.get("tests"), suite.get("failures")) == ("5", "4")  # every step still has drafts
    failed = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    assert failed == ["draft 1 accepted", "draft 2 accepted", "draft 3 accepted", "mean acceptance length"]
    names = {entry.get("name"): entry.get("value") for entry in suite.iter("property")}
    assert names["mode"] == "statistical" and names["mark.slow"] == "true" and names["platform.capability"] == "NEON"
    suite = ET.fromstring(junit_not_run("zoo", "no <file>"))
    assert suite.find(".//skipped").get("message") == "no <file>"


class Tags(HTMLParser):
    """Collects what a document opens, refers to and says."""

    def __init__(self):
        super().__init__()
        self.tags, self.references, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


def read(document):
    tags = Tags()
    tags.feed(document)
    tags.text = " ".join(tags.text)
    return tags


def test_html_stands_alone_and_shows_the_plots():
    found = read(html(result(BAD, ELSEWHERE)))
    assert found.references == [] and "script" not in found.tags and "@import" not in found.text
    assert found.tags.count("svg") == 3
    for words in ("REGRESSION", "no entry of its own", "math <1>", "accepted drafts", "category", "capability"):
        assert words in found.text, words


def test_a_pass_on_the_same_platform_does_not_look_unjudged():
    passed, judged = [read(html(result(GOOD, key))) for key in (KEY, ELSEWHERE)]
    assert "not judged" not in passed.text and " result " not in passed.text
    assert " result " in judged.text and " ok" in judged.text


def test_ticks_are_round_and_reach_the_top():
    assert ticks(0.97) == [0, 0.2, 0.4, 0.6, 0.8]
    assert ticks(1.0) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(3.1) == [0, 1, 2, 3]
    for top in (1e-9, 0.013, 0.5, 1.9, 2.6, 4.0, 17, 1000):
        assert 3 <= len(ticks(top)) <= 6 and ticks(top)[-1] <= top * (1 + 1e-9) < ticks(top)[-1] + ticks(top)[1]


def test_html_of_a_server_has_no_histogram():
    """A server does not report steps, so there is nothing to count."""
    samples = [replace(entry, accepted_by_step=(), num_steps=0, token_ids=()) for entry in GOOD]
    baseline = Baseline(settings=SETTINGS, entries=()).with_entry(measurement(samples, key={"endpoint": "vllm"}))
    found = check(baseline, measurement(samples, key={"endpoint": "vllm"}), title="served")
    assert not found.verdict.is_exact and found.verdict.passed
    assert read(html(found)).tags.count("svg") == 2


def test_bars_have_the_heights_of_their_values():
    chart = ET.fromstring(
        bar_chart("a & b", ["g"], [Series(name="s", colour="#000", bars=(Bar(value=0.5, low=0.25, high=1.0),))])
    )
    space = "{http://www.w3.org/2000/svg}"
    (bar, key) = chart.findall(f"{space}rect")
    plotted = (240 - 44 - 24) / 1.08
    assert float(bar.get("height")) == pytest.approx(plotted * 0.5, abs=0.1)
    assert key.get("width") == "10"
    (whisker,) = chart.findall(f"{space}path")
    assert whisker.get("d").startswith("M") and chart.find(f"{space}text").text == "a & b"
