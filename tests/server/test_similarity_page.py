"""The page at / of a pooling model in a real browser, against a server that says what a test wrote down."""

import base64
import json
import shlex
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .browser import chromium, need_chromium, until, watch
from .scripted_server import Script, serving

need_chromium()

VECTORS = {"one": [1.0, 0.0, 0.0], "near": [0.8, 0.6, 0.0], "far": [-0.6, 0.0, 0.8]}
TEXTS = list(VECTORS)


def embeddings(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """An answer of /v1/embeddings: the vector of a text, whatever is beside it."""
    assert path == "/v1/embeddings" and body["encoding_format"] == "base64"
    data = [base64.b64encode(struct.pack("<3f", *VECTORS.get(text, [0.0] * 3))).decode() for text in body["input"]]
    return {"data": [{"index": index, "embedding": vector} for index, vector in enumerate(data)]}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def opened(browser: Any) -> Any:
    """Open the page on a scripted server; it may call no other host, and its console stays clean."""

    @contextmanager
    def open_page(script: Script, *, width: int = 1280, scheme: str = "light") -> Iterator[Any]:
        with serving(script) as url:
            context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page = context.new_page()
            page.set_default_timeout(10_000)
            seen = watch(page)
            page.goto(url)
            until(page, "document.getElementById('server').textContent !== 'Looking for the server…'")
            try:
                yield page
            finally:
                context.close()
            assert seen.errors == []
            assert seen.hosts <= {"127.0.0.1", "data"}

    return open_page


def compare(page: Any, texts: list[str]) -> None:
    """Enter the texts, press Compare, and wait for the end."""
    page.fill("#texts", "\n".join(texts))
    page.click("#run")
    until(page, "document.getElementById('run').textContent === 'Compare'")


def cells(page: Any) -> list[list[str]]:
    """The numbers of the matrix, row by row."""
    found: list[list[str]] = page.evaluate(
        """[...document.querySelectorAll('#rows tr')].map(
            row => [...row.querySelectorAll('td')].map(td => td.textContent))"""
    )
    return found


def test_the_matrix_has_the_cosine_of_every_pair(opened: Any) -> None:
    script = Script(tasks=("embed", "score"), answer=embeddings)
    with opened(script) as page:
        assert page.inner_text("#server") == "tiny · embed, score"
        compare(page, [*TEXTS, "", "zero"])
        shown = cells(page)
        best = page.evaluate("[...document.querySelectorAll('.is-best')].map(td => td.textContent)")
        heads = page.locator("#rows th").all_text_contents()
        status = page.inner_text("#status")
    products = [
        [sum(a * b for a, b in zip(one, other, strict=True)) for other in VECTORS.values()] for one in VECTORS.values()
    ]
    assert shown == [*([f"{value:.3f}" for value in [*row, 0.0]] for row in products), ["0.000"] * 4]
    assert best == ["0.800", "0.800", "0.000", "0.000"]
    assert heads == ["1. one", "2. near", "3. far", "4. zero"]  # an empty line is not a text
    assert status.startswith("Same bytes Each of the 4 texts was also sent alone")
    assert [body["input"] for body in script.seen] == [[*TEXTS, "zero"], *([text] for text in [*TEXTS, "zero"])]


def test_a_text_whose_bytes_depend_on_its_neighbours_is_named(opened: Any) -> None:
    def depends(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = embeddings(path, body)
        if body["input"] == ["near"]:
            answer["data"][0]["embedding"] = base64.b64encode(struct.pack("<3f", 0.8, 0.59999996, 0.0)).decode()
        return answer

    with opened(Script(tasks=("embed",), answer=depends)) as page:
        compare(page, TEXTS)
        assert page.inner_text("#status").startswith("Not the same Text 2 alone gives other bytes")


def test_a_reranker_shows_the_score_of_every_pair(opened: Any) -> None:
    def score(path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path == "/score"
        row = TEXTS.index(body["text_1"])
        return {"data": [{"score": (3 * row + column) / 10} for column, _ in enumerate(body["text_2"])]}

    with opened(Script(tasks=("score", "classify"), answer=score)) as page:
        compare(page, TEXTS)
        assert cells(page) == [[f"{(3 * row + column) / 10:.3f}" for column in range(3)] for row in range(3)]
        assert page.inner_text("#status") == "Done 3 texts."


def test_a_classifier_shows_the_probability_of_every_label(opened: Any) -> None:
    def classify(path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path == "/classify" and body["input"] == TEXTS
        rows = [("good", [0.7, 0.3]), ("bad", [0.1, 0.9]), ("good", [0.6, 0.4])]
        return {"data": [{"label": label, "probs": probs} for label, probs in rows]}

    with opened(Script(tasks=("classify",), answer=classify)) as page:
        compare(page, TEXTS)
        assert page.locator("#heads th").all_text_contents() == ["good", "bad"]
        assert cells(page) == [["0.700", "0.300"], ["0.100", "0.900"], ["0.600", "0.400"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_is_not_wider_than_the_screen(opened: Any, width: int, scheme: str) -> None:
    texts = [f"{index} " + "w" * 300 for index in range(24)]
    with opened(Script(tasks=("embed",), answer=embeddings), width=width, scheme=scheme) as page:
        compare(page, texts)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # a row's head stays in view, and leaves room for numbers
        assert page.evaluate("document.querySelector('#rows th').getBoundingClientRect().width") <= width / 2
        assert page.evaluate("getComputedStyle(document.querySelector('#rows th')).position") == "sticky"


def test_texts_are_text_and_never_markup(opened: Any) -> None:
    markup = "<img src=x onerror=document.title='taken'><b>bold</b>"
    with opened(Script(tasks=("embed",), answer=embeddings)) as page:
        compare(page, [markup, "one"])
        assert page.locator("#rows th").first.text_content() == f"1. {markup}"
        assert page.locator("#results img, #results b").count() == 0
        assert page.title() == "Outrider"


def test_refusals_are_shown_and_the_next_run_may_succeed(opened: Any) -> None:
    script = Script(tasks=("embed",), answer=embeddings)
    with opened(script) as page:
        compare(page, ["alone"])
        assert page.inner_text("#alert") == "There is 1 text. Give 2 to 24, one in each line."
        assert script.seen == [] and page.get_attribute("#texts", "aria-invalid") == "true"
        script.refusal = (429, {"Retry-After": "3"}, {"message": "full"})
        compare(page, TEXTS)
        assert page.inner_text("#alert") == "The server is full. Try again in 3 seconds."
        assert not page.is_visible("#results") and not page.is_visible("#status")
        script.refusal = None
        compare(page, TEXTS)
        assert page.is_visible("#results") and not page.is_visible("#alert")
        assert page.get_attribute("#texts", "aria-invalid") is None


def test_a_key_is_asked_for(opened: Any) -> None:
    script = Script(tasks=("embed",), answer=embeddings, api_key="secret")
    with opened(script) as page:
        assert page.is_visible("#key")
        page.fill("#key", "secret")
        compare(page, TEXTS)
        assert page.is_visible("#results") and "Bearer $API_KEY" in page.text_content("#curl")


def test_the_request_for_a_terminal_is_the_request_that_was_sent(opened: Any) -> None:
    script = Script(tasks=("embed",), answer=embeddings)
    with opened(script) as page:
        compare(page, ["it's", "one"])
        words = shlex.split(page.text_content("#curl"))
    assert words[0] == "curl" and words[1].endswith("/v1/embeddings")
    assert json.loads(words[-1]) == script.seen[0]


def test_stop_ends_a_run(opened: Any) -> None:
    with opened(Script(tasks=("embed",), answer=embeddings, holds_after=0)) as page:
        page.fill("#texts", "one\nnear")
        page.click("#run")
        assert page.inner_text("#run") == "Stop"
        page.keyboard.press("Escape")
        until(page, "document.getElementById('run').textContent === 'Compare'")
        assert not page.is_visible("#results") and not page.is_visible("#alert")
