"""The HTML report of the gate in a real browser: no sideways scroll of the page on a phone, in both schemes."""

from outrider.gate.html import html
from tests.server.browser import chromium, need_chromium

from .test_reports import BAD, ELSEWHERE, result

need_chromium()


def test_the_page_is_not_wider_than_a_phone_and_follows_the_scheme(tmp_path) -> None:
    path = tmp_path / "gate.html"
    path.write_text(html(result(BAD, ELSEWHERE)))
    with chromium() as browser:
        papers = []
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme, is_mobile=True)
            page = context.new_page()
            page.goto(path.as_uri())
            assert page.evaluate("innerWidth") == page.evaluate("document.documentElement.scrollWidth") == 390
            assert page.evaluate("document.querySelector('svg').getBoundingClientRect().width") > 500, "legible"
            papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            context.close()
        assert papers[0] == "rgb(255, 255, 255)" != papers[1]
