"""Headless Chromium for tests of the page at /: Debian's, driven by Playwright.

Without a browser these tests are skipped on a developer's machine and fail in CI.

Knows browsers; nothing of what the page shows.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "the page at / was NOT tested: Chromium is not installed (Debian: apt-get install chromium)"


def need_chromium() -> None:
    """Skip the module that calls this if there is no browser; in CI (CI=true) its collection fails instead."""
    if CHROMIUM is not None:
        return
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(MISSING + ". CI must test the page.", pytrace=False)
    pytest.skip(MISSING, allow_module_level=True)


# as root there is no sandbox; the rest keeps it from calling its maker
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """Requests and errors of a page, which a person does not see."""

    errors: list[str] = field(default_factory=list)
    """Messages of its console that are warnings or errors, and exceptions; not the server's refusals."""
    refusals: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    """URLs of all requests."""


def watch(page: Any) -> Seen:
    """Follow a page from now on."""
    seen = Seen()

    def on_message(message: Any) -> None:
        if message.text.startswith("Failed to load resource"):
            seen.refusals.append(message.text)
        elif message.type in ("error", "warning"):
            seen.errors.append(message.text)

    page.on("console", on_message)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).hostname or request.url.split(":")[0]))
    return seen


def until(page: Any, expression: str, argument: Any = None, *, seconds: float = 120.0) -> None:
    """Wait for an expression to hold. (Playwright's own wait evaluates text, which the page's policy forbids.)"""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression, argument):
        assert time.monotonic() < deadline, f"in {seconds} s it never held that {expression}"
        page.wait_for_timeout(20)


def run(page: Any) -> None:
    """Press Run and wait for the end."""
    page.click("#run")
    until(page, "document.getElementById('run').textContent === 'Run'")
