"""The page at / on the real server with the zoo's models: what a person sees is what the API said, and it is proven."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.support.server_under_test import ServerUnderTest

from .browser import chromium, need_chromium, run, until, watch

need_chromium()


@pytest.fixture(scope="module")
def page(server: ServerUnderTest) -> Iterator[Any]:
    """One window for all tests; no other host may be called and the console stays clean."""
    with chromium() as browser:
        opened = browser.new_page(viewport={"width": 360, "height": 740})
        seen = watch(opened)
        opened.goto(server.url)
        until(opened, "document.getElementById('server').textContent.startsWith('zoo/tiny')")
        yield opened
        assert seen.errors == seen.refusals == []
        assert seen.hosts == {"127.0.0.1", "data"} or seen.hosts == {"127.0.0.1"}


def ask(server: ServerUnderTest, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Sends a request without streaming."""
    body = {name: value for name, value in body.items() if not name.startswith("stream")}
    request = Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@pytest.mark.parametrize(
    ("example", "temperature"),
    [
        ("Config file", "0.9"),
        ("Gym problem", "0"),
        pytest.param("Config file", "0", marks=pytest.mark.slow),
        pytest.param("Gym problem", "0.9", marks=pytest.mark.slow),
    ],
)
def test_what_the_page_shows_is_what_the_api_says(
    server: ServerUnderTest, page: Any, example: str, temperature: str
) -> None:
    bodies: list[tuple[str, dict[str, Any]]] = []

    def note(request: Any) -> None:
        if request.method == "POST":
            bodies.append((request.url.removeprefix(server.url), request.post_data_json))

    page.on("request", note)
    page.click(f"text={example}")
    page.fill("#temperature", temperature)
    page.fill("#max-tokens", "40")
    run(page)
    page.remove_listener("request", note)
    assert page.is_hidden("#alert")
    assert page.get_attribute("#status", "class") == "notice is-same", page.inner_text("#status")
    assert [body["num_speculative_tokens"] for _, body in bodies] == [3, 0]
    for column, (path, body) in enumerate(bodies):
        answer = ask(server, path, body)
        (choice,) = answer["choices"]
        stats = answer["usage"]["speculation"]
        shown = page.evaluate(
            """column => [...document.querySelectorAll('.stream')[column].querySelectorAll('.token')].map(
                ({dataset, textContent, classList}) => [Number(dataset.id), textContent, classList[1]])""",
            column,
        )
        assert shown == [
            list(t) for t in zip(choice["token_ids"], choice["token_texts"], choice["origins"], strict=True)
        ]
        text = choice["text"] if "text" in choice else choice["message"]["content"]
        assert "".join(piece for _, piece, _ in shown) == text
        figures = page.evaluate(
            """column => Object.fromEntries([...document.querySelectorAll('.stream')[column]
                .querySelectorAll('[data-figure]')].map(dd => [dd.dataset.figure, dd.textContent]))""",
            column,
        )
        assert figures["tokens"] == str(len(shown))
        assert figures["steps"] == str(stats["num_steps"])
        if column == 1:
            assert stats["num_steps"] == len(shown)
            continue
        assert stats["num_steps"] < len(shown)
        per_pos = stats["num_accepted_tokens_per_pos"]
        assert page.locator(".bar-rate").all_text_contents() == [
            f"{100 * count / stats['num_drafts']:.0f} %  {count} of {stats['num_drafts']}" for count in per_pos
        ]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_stop_frees_the_engine(server: ServerUnderTest, page: Any) -> None:
    page.click("text=Stack class")
    page.fill("#temperature", "1")
    page.fill("#max-tokens", "1500")
    page.click("#run")
    until(page, "document.querySelectorAll('.token').length > 3")
    page.click("#run")
    until(page, "document.getElementById('run').textContent === 'Run'")
    assert page.inner_text("#status").startswith("Stopped")

    def is_idle() -> bool:
        with urlopen(server.url + "metrics") as answer:
            lines = answer.read().decode().splitlines()
        return any(line.startswith("outrider:num_requests_running{") and line.endswith(" 0.0") for line in lines)

    for _ in range(200):
        if is_idle():
            return
        page.wait_for_timeout(50)
    raise AssertionError("requests still run that nobody listens to")


def test_files_of_the_page_come_with_a_policy(server: ServerUnderTest) -> None:
    for name, kind in (("", "text/html"), ("page/page.css", "text/css"), ("page/page.js", "text/javascript")):
        with urlopen(server.url + name) as answer:
            assert answer.headers["Content-Type"].startswith(kind)
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self';") and "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
