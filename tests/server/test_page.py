"""The page at / in a real browser, against a server that says what a test wrote down.

Whole runs on the zoo's models are in `test_page_served.py`; here is what a sound engine never does, too.
"""

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .browser import chromium, need_chromium, run, until, watch
from .scripted_server import TEXT, Script, Token, chunks_of, serving, tokens_of

need_chromium()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def opened(browser: Any) -> Any:
    """Open the page on a scripted server; whatever happens, it may call no other host and its console stays clean."""

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


def asked(script: Script, num_drafts: int) -> dict[str, Any]:
    """The body of the stream with this many drafts."""
    (body,) = [body for body in script.seen if body["num_speculative_tokens"] == num_drafts]
    return body


def told(script: Script, num_drafts: int) -> list[tuple[int, str, str]]:
    """(id, text, origin) of every token that the API told."""
    choices = [chunk["choices"][0] for chunk in chunks_of(script, asked(script, num_drafts), is_chat=False)]
    return [
        token
        for choice in choices
        for token in zip(choice["token_ids"], choice["token_texts"], choice["origins"], strict=True)
    ]


def shown(page: Any, column: int) -> list[tuple[int, str, str]]:
    """(id, text, origin) of every token on the page."""
    tokens = page.evaluate(
        """column => [...document.querySelectorAll('.stream')[column].querySelectorAll('.token')].map(
            ({dataset, textContent, classList}) => [Number(dataset.id), textContent, classList[1]])""",
        column,
    )
    return [tuple(token) for token in tokens]


def figures(page: Any, column: int) -> dict[str, str]:
    """Figures at the head of a column."""
    found: dict[str, str] = page.evaluate(
        """column => Object.fromEntries([...document.querySelectorAll('.stream')[column]
            .querySelectorAll('[data-figure]')].map(dd => [dd.dataset.figure, dd.textContent]))""",
        column,
    )
    return found


def test_tokens_are_shown_with_the_origins_and_figures_that_the_api_told(opened: Any) -> None:
    script = Script()
    with opened(script) as page:
        run(page)
        assert shown(page, 0) == told(script, 3)
        assert shown(page, 1) == told(script, 0)
        last = list(chunks_of(script, asked(script, 3), is_chat=False))[-1]["usage"]
        stats = last["speculation"]
        tokens, steps = last["completion_tokens"], stats["num_steps"]
        assert (
            1 < stats["num_accepted_tokens_per_pos"][2] < stats["num_accepted_tokens_per_pos"][0] < stats["num_drafts"]
        )
        assert figures(page, 0)["tokens"] == str(tokens)
        assert figures(page, 0)["steps"] == str(steps)
        assert figures(page, 0)["perStep"] == f"{tokens / steps:.2f}"
        assert figures(page, 1)["steps"] == str(tokens)
        assert figures(page, 1)["perStep"] == "1.00"
        rates = page.locator(".bar-rate").all_text_contents()
        accepted = stats["num_accepted_tokens_per_pos"]
        assert rates == [
            f"{100 * count / stats['num_drafts']:.0f} %  {count} of {stats['num_drafts']}" for count in accepted
        ]
        widths = page.evaluate("[...document.querySelectorAll('.bar i')].map(bar => parseFloat(bar.style.width))")
        assert widths == pytest.approx([100 * count / stats["num_drafts"] for count in accepted], abs=0.01)
        assert f"length {stats['mean_acceptance_length']:.2f} of at most 4" in page.inner_text("#acceptance-note")


def test_the_timeline_has_a_cell_for_each_token_in_the_column_of_its_step(opened: Any) -> None:
    script = Script()
    with opened(script) as page:
        run(page)
        paths = page.evaluate("[...document.querySelectorAll('.timeline path')].map(path => path.getAttribute('d'))")
        targets, drafts, plain_targets, plain_drafts = [path.count("M") for path in paths]
        origins = [origin for _, _, origin in told(script, 3)]
        assert (drafts, targets) == (origins.count("draft"), origins.count("target"))
        assert (plain_drafts, plain_targets) == (0, len(origins))
        label = page.get_attribute(".timeline svg", "aria-label")
        assert label == f"With 3 drafts a step: {len(origins)} tokens in {targets} steps"


def test_both_streams_are_asked_with_the_same_settings(opened: Any) -> None:
    script = Script()
    with opened(script) as page:
        page.fill("#temperature", "0.35")
        page.fill("#max-tokens", "20")
        page.fill("#seed", "9007199254740991")
        page.select_option("#drafts", "2")
        run(page)
    ours, plain = asked(script, 2), asked(script, 0)
    assert {**ours, "num_speculative_tokens": 0} == plain
    assert (ours["temperature"], ours["max_tokens"], ours["seed"]) == (0.35, 20, 9007199254740991)
    assert ours["prompt"].startswith("class Stack:")


def test_the_request_for_a_terminal_is_the_request_that_was_sent(opened: Any) -> None:
    script = Script(api_key="sesame")
    with opened(script) as page:
        page.fill("#key", "sesame")
        page.fill("#prompt", 'it\'s "quoted" \\ $HOME `x`\n')
        run(page)
        words = shlex.split(page.text_content("#curl"))
        assert json.loads(words[words.index("-d") + 1]) == asked(script, 3)
        assert words[:3] == ["curl", "-N", page.url + "v1/completions"]
        assert "Authorization: Bearer $API_KEY" in words and "sesame" not in words


def test_an_empty_seed_is_drawn_once_for_both(opened: Any) -> None:
    script = Script()
    with opened(script) as page:
        page.fill("#seed", "")
        run(page)
        assert int(page.input_value("#seed")) == asked(script, 3)["seed"] == asked(script, 0)["seed"]


def test_chat_sends_a_message(opened: Any) -> None:
    script = Script()
    with opened(script) as page:
        page.click("text=Gym problem")
        assert page.is_checked("input[value=chat]")
        run(page)
        assert asked(script, 3)["messages"][0]["content"].startswith("The gym has 7 racks")
        assert page.locator(".token").count() == 2 * len(tokens_of(TEXT))
        assert "prompt" not in asked(script, 3)


def test_tokens_stream_in_while_the_server_goes_on(opened: Any) -> None:
    script = Script(holds_after=6)
    with opened(script) as page:
        page.click("#run")
        until(page, "document.querySelectorAll('.token').length > 5")
        until(page, "document.querySelectorAll('.bar-rate')[0].textContent.includes(' of ')")
        assert page.inner_text("#run") == "Stop"
        assert page.inner_text("#status").startswith("Running")
        script.goes_on.set()
        until(page, "document.getElementById('run').textContent === 'Run'")
        assert page.locator(".token").count() == 2 * len(tokens_of(TEXT))
        assert re.fullmatch(r"\d+(\.\d)?", figures(page, 0)["speed"])


def test_one_by_one_asks_for_the_second_stream_when_the_first_has_ended(opened: Any) -> None:
    script = Script(pause=0.02, holds_after=4)
    with opened(script) as page:
        assert page.input_value("#order") == "apart", "speeds are compared unless a person asks otherwise"
        page.click("#run")
        until(page, "document.querySelectorAll('.token').length > 3")
        assert len(script.seen) == 1
        script.goes_on.set()
        until(page, "document.getElementById('run').textContent === 'Run'")
        assert [body["num_speculative_tokens"] for body in script.seen] == [3, 0]
        assert page.inner_text("#status").startswith("Same tokens")


def test_speeds_are_compared(opened: Any) -> None:
    with opened(Script(pause=0.02)) as page:
        run(page)
        said = re.search(r"([\d.]+) times the tokens per second", page.inner_text("#status"))
        assert said and float(said[1]) > 1, "a step takes the same time with drafts here"


def test_equal_streams_are_proven_equal_token_by_token(opened: Any) -> None:
    with opened(Script()) as page:
        run(page)
        count = len(tokens_of(TEXT))
        assert page.get_attribute("#status", "class") == "notice is-same"
        assert f"{count} of {count} token ids are equal" in page.inner_text("#status")
        assert page.locator(".is-difference").count() == 0


def test_the_first_difference_is_named_and_marked_in_both(opened: Any) -> None:
    plain = tokens_of(TEXT)
    drafted = [*plain[:31], Token(2999, "oops"), *plain[32:]]
    with opened(Script(plain=plain, drafted=drafted)) as page:
        run(page)
        assert page.get_attribute("#status", "class") == "notice is-different"
        words = page.inner_text("#status")
        assert f'Token 32 is "oops" (id 2999) with drafts and "{plain[31].text}" (id {plain[31].id}) without' in words
        marked = page.locator(".is-difference")
        assert marked.all_text_contents() == ["oops", plain[31].text]
        red, green, blue = map(int, re.findall(r"\d+", marked.first.evaluate("span => getComputedStyle(span).color")))
        assert red > 150 > 60 > max(green, blue)


def test_equal_text_of_other_ids_is_a_difference(opened: Any) -> None:
    plain = tokens_of(TEXT)
    drafted = [*plain[:5], Token(plain[5].id + 1, plain[5].text), *plain[6:]]
    with opened(Script(plain=plain, drafted=drafted)) as page:
        run(page)
        assert page.get_attribute("#status", "class") == "notice is-different"


def test_equal_ids_of_other_logits_are_a_difference(opened: Any) -> None:
    with opened(Script(digests=("12ab", "12ab"))) as page:
        run(page)
        assert page.get_attribute("#status", "class") == "notice is-same"
        assert "The bits of all logits are equal, too." in page.inner_text("#status")
    with opened(Script(digests=("12ab", "12ac"))) as page:
        run(page)
        assert page.get_attribute("#status", "class") == "notice is-different"
        assert "logits digests 12ac and 12ab" in page.inner_text("#status")
    with opened(Script()) as page:
        run(page)
        assert "bits" not in page.inner_text("#status"), "without digests there is nothing to say about them"


def test_a_stream_that_ends_early_is_a_difference(opened: Any) -> None:
    plain = tokens_of(TEXT)
    with opened(Script(plain=plain, drafted=plain[:-2])) as page:
        run(page)
        assert page.get_attribute("#status", "class") == "notice is-different"
        assert f"Token {len(plain) - 1} is missing with drafts" in page.inner_text("#status")


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop_keeps_what_there_is_and_claims_no_more(opened: Any, how: str) -> None:
    with opened(Script(holds_after=4)) as page:
        page.select_option("#order", "together")
        page.click("#run")
        until(page, "document.querySelectorAll('.token').length > 6")
        if how == "button":
            page.click("#run")
        else:
            page.keyboard.press("Escape")
        until(page, "document.getElementById('run').textContent === 'Run'")
        words = page.inner_text("#status")
        count = min(int(figures(page, 0)["tokens"]), int(figures(page, 1)["tokens"]))
        assert words.startswith("Stopped") and f"{count} tokens compared so far: all equal" in words
        assert page.is_hidden("#alert")
        assert page.get_attribute("#status", "class") == "notice is-open"


def test_a_stopped_run_can_be_followed_by_another(opened: Any) -> None:
    script = Script(holds_after=4)
    with opened(script) as page:
        page.click("#run")
        until(page, "document.querySelectorAll('.token').length > 2")
        page.click("#run")
        until(page, "document.getElementById('run').textContent === 'Run'")
        script.goes_on.set()
        run(page)
        assert page.get_attribute("#status", "class") == "notice is-same"
        assert page.locator(".stream").count() == 2


REFUSALS = [
    (429, {"Retry-After": "7"}, {"message": "64 wait."}, "The server is full. Try again in 7 seconds."),
    (429, {}, {"message": "64 wait."}, "The server is full. Try again in a moment."),
    (503, {}, {"message": "The engine has ended."}, "The engine is not running. It says: The engine has ended."),
    (500, {}, {"message": "Oh."}, "The server failed (500). It says: Oh."),
    (404, {}, {"message": "Not here."}, "The server does not know this model any more. It says: Not here."),
    (413, {}, {"message": "At most 1 MiB."}, "The prompt is too large for this server. It says: At most 1 MiB."),
    (
        400,
        {},
        {"message": "seed=1 is odd.", "param": "seed"},
        "The server refused the request because of seed. It says: seed=1 is odd.",
    ),
]


def test_refusals_are_told_in_words_and_the_next_run_may_succeed(opened: Any) -> None:
    script = Script()
    with opened(script) as page:
        for status, headers, error, words in REFUSALS:
            script.refusal = (status, headers, error)
            run(page)
            assert page.inner_text("#alert").startswith(words)
            assert page.is_hidden("#status")
            assert page.is_hidden("#results")
        script.refusal = None
        run(page)
        assert page.is_hidden("#alert")
        assert page.get_attribute("#status", "class") == "notice is-same"


def test_a_key_is_asked_for_where_the_server_wants_one(opened: Any) -> None:
    script = Script(api_key="sesame")
    with opened(script) as page:
        assert "asks for an API key" in page.inner_text("#alert")
        assert page.evaluate("document.activeElement.id") == "key"
        page.fill("#key", "wrong")
        run(page)
        assert "asks for an API key" in page.inner_text("#alert")
        page.fill("#key", "sesame")
        run(page)
        assert page.is_hidden("#alert")
        assert page.get_attribute("#status", "class") == "notice is-same"


@pytest.mark.parametrize("error", [{"message": "The engine process has ended."}, None], ids=["told", "cut"])
def test_an_engine_that_dies_in_the_middle_is_told_and_its_tokens_stay(opened: Any, error: Any) -> None:
    with opened(Script(breaks_after=6, error=error)) as page:
        run(page)
        words = page.inner_text("#alert")
        assert words.startswith("The stream broke off before its end.")
        assert ("It says: The engine process has ended." in words) == (error is not None)
        assert page.locator(".token").count() >= 6
        assert page.get_attribute("#status", "class") == "notice is-open"


def test_a_server_that_is_gone_is_told(opened: Any, browser: Any) -> None:
    with serving(Script()) as url:
        page = browser.new_page()
        page.goto(url)
        until(page, "document.getElementById('server').textContent.startsWith('tiny')")
    page.click("#run")
    page.wait_for_selector("#alert:not([hidden])")
    assert page.inner_text("#alert").startswith("The server does not answer.")
    page.close()


def test_a_wrong_setting_is_named_and_nothing_is_sent(opened: Any) -> None:
    wrong = [
        ("#temperature", "-1", "Temperature takes a number from 0 to 10."),
        ("#max-tokens", "0", "Max tokens takes a whole number from 1 to 2048."),
        ("#max-tokens", "1.5", "Max tokens takes a whole number from 1 to 2048."),
        ("#max-tokens", "", "Max tokens takes a whole number from 1 to 2048."),
        ("#seed", "-3", "Seed takes a whole number from 0 to 9007199254740991."),
        ("#prompt", " \n", "There is no prompt yet."),
    ]
    script = Script()
    with opened(script) as page:
        for field, value, words in wrong:
            before = page.input_value(field)
            page.fill(field, value)
            page.click("#run")
            assert page.inner_text("#alert").startswith(words)
            assert page.get_attribute(field, "aria-invalid") == "true"
            assert page.evaluate("document.activeElement.id") == field[1:]
            page.fill(field, before)
        assert script.seen == []
        run(page)
        assert page.locator("[aria-invalid]").count() == 0
        assert len(script.seen) == 2


def test_without_a_drafter_there_is_one_stream_and_no_claim(opened: Any) -> None:
    script = Script(num_drafts=0)
    with opened(script) as page:
        assert page.inner_text("#server").endswith("no drafter")
        run(page)
        assert page.locator(".stream").count() == 1
        assert page.is_hidden("#acceptance")
        assert "nothing to compare" in page.inner_text("#status")
        remedy = page.inner_text("#no-drafter code")
        assert json.loads(shlex.split(remedy)[1])["method"] == "ngram"
        assert page.is_hidden("#lead"), "it would promise two runs"
        assert len(script.seen) == 1


def test_a_newcomer_reads_what_draft_and_target_are(opened: Any) -> None:
    with opened(Script()) as page:
        lead = page.inner_text("#lead")
        assert len(re.findall(r"[.] |[.]$", lead)) == 3, "three sentences"
        assert {"target", "drafter", "draft"} <= set(re.findall(r"[a-z]+", lead))
        assert page.is_hidden("#no-drafter")


def test_an_error_takes_the_verdict_of_an_earlier_run_away(opened: Any) -> None:
    with opened(Script()) as page:
        run(page)
        page.fill("#temperature", "-1")
        page.click("#run")
        assert page.is_visible("#alert") and page.is_hidden("#status")
        assert page.is_visible("#old"), "the output stays, marked as old"
        page.fill("#temperature", "0")
        run(page)
        assert page.is_hidden("#old") and page.inner_text("#status").startswith("Same tokens")


def test_a_chat_goes_on(opened: Any) -> None:
    script = Script()
    with opened(script) as page:
        page.click("text=Gym problem")
        first = page.input_value("#prompt")
        run(page)
        assert page.input_value("#prompt") == first, "Run repeats the request until a person replies"
        page.click("#reply")
        assert page.evaluate("document.activeElement.id") == "prompt" and page.input_value("#prompt") == ""
        assert page.locator("#turns li").count() == 2
        page.keyboard.type("And then?")
        script.seen.clear()
        run(page)
        expected = [("user", first), ("assistant", TEXT), ("user", "And then?")]
        for body in script.seen:
            assert [(message["role"], message["content"]) for message in body["messages"]] == expected
        assert len(script.seen) == 2
        page.click("#forget")
        script.seen.clear()
        run(page)
        assert [len(body["messages"]) for body in script.seen] == [1, 1]


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "dark"),
        (1400, "light"),
        pytest.param(390, "light", marks=pytest.mark.slow),
        pytest.param(1400, "dark", marks=pytest.mark.slow),
    ],
)
def test_text_is_legible_and_overlaps_nothing(opened: Any, width: int, scheme: str) -> None:
    """Contrast as drawn (WCAG AA), before and after a run, and boxes of text that do not cross."""
    with opened(Script(), width=width, scheme=scheme) as page:
        assert faint(page) == [] and overlaps(page) == []
        page.click("text=Gym problem")
        run(page)
        page.click("#reply")
        page.fill("#prompt", "And then?")
        run(page)
        page.click("summary")
        assert faint(page) == [] and overlaps(page) == []
        page.fill("#temperature", "-1")
        page.click("#run")
        assert faint(page) == [] and overlaps(page) == []


def test_on_a_phone_the_answer_is_in_view_and_can_be_stopped(opened: Any) -> None:
    with opened(Script(holds_after=6), width=390) as page:
        page.click("#run")
        until(page, "document.querySelectorAll('.token').length > 4")
        for where in (".text", "#run"):
            top, bottom = page.evaluate(
                "where => (({top, bottom}) => [top, bottom])(document.querySelector(where).getBoundingClientRect())",
                where,
            )
            assert top >= 0 and bottom <= 800, where
        page.click("#run")
        until(page, "document.getElementById('run').textContent === 'Run'")


def faint(page: Any) -> list[str]:
    """Texts whose contrast with what is drawn behind them is under 4.5."""
    found: list[str] = page.evaluate(
        """() => {
            const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
            const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
                .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
                .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
            const behind = (element) => {
                for (let at = element; at; at = at.parentElement) {
                    const colour = channels(getComputedStyle(at).backgroundColor);
                    if (colour.length === 3 || colour[3] === 1) return colour;
                }
                return [255, 255, 255];
            };
            const hasText = (e) => e.matches('input, select, textarea')
                || [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
            return [...document.querySelectorAll('body *')].filter((e) => hasText(e) && e.checkVisibility()
                && !e.closest('.unseen, template, noscript, select *') && !e.disabled).map((e) => {
                const both = [light(channels(getComputedStyle(e).color)), light(behind(e))];
                const [low, high] = both.sort((a, b) => a - b);
                return [(high + 0.05) / (low + 0.05), e.outerHTML.slice(0, 120)];
            }).filter(([ratio]) => ratio < 4.5).map(([ratio, html]) => `${ratio.toFixed(2)} ${html}`);
        }"""
    )
    return found


def overlaps(page: Any) -> list[str]:
    """Pairs of blocks, neither in the other, whose boxes cross by more than a pixel."""
    found: list[str] = page.evaluate(
        """() => {
            const blocks = [...document.querySelectorAll(
                'h1, h2, p, label, .field, button, textarea, .text, dl div, .bars li, svg, summary, pre, #turns')]
                .filter((e) => e.checkVisibility() && !e.closest('.unseen, template') && !e.matches('.unseen'));
            const boxes = blocks.map((e) => e.getBoundingClientRect());
            const crossing = [];
            blocks.forEach((one, i) => blocks.slice(i + 1).forEach((other, j) => {
                if (one.contains(other) || other.contains(one)) return;
                const [a, b] = [boxes[i], boxes[i + 1 + j]];
                const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                const pair = [one, other].map((e) => e.outerHTML.slice(0, 80)).join(' × ');
                if (wide > 1 && high > 1) crossing.push(pair);
            }));
            return crossing;
        }"""
    )
    return found


def test_tokens_are_text_and_never_markup(opened: Any) -> None:
    text = '<img src="http://elsewhere.invalid/x" onerror="alert(1)"><b>'
    tokens = [Token(1, text), Token(2, "</span>"), Token(3, "&amp;")]
    with opened(Script(plain=tokens)) as page:
        run(page)
        assert [piece for _, piece, _ in shown(page, 1)] == [text, "</span>", "&amp;"]
        assert page.locator(".text img").count() == 0


def test_the_keyboard_reaches_everything_and_runs(opened: Any) -> None:
    script = Script()
    with opened(script) as page:
        reached = []
        for _ in range(16):
            page.keyboard.press("Tab")
            focused = "document.activeElement.id || document.activeElement.textContent || document.activeElement.value"
            reached.append(page.evaluate(focused))
        order = ["completion", "Stack class", "Picnic problem", "prompt", "temperature", "seed", "drafts", "run"]
        assert [name for name in reached[: reached.index("run") + 1] if name in order] == order
        page.focus("#prompt")
        page.keyboard.press("Control+Enter")
        until(page, "document.getElementById('status').textContent.startsWith('Same tokens')")
        assert len(script.seen) == 2


def test_a_screen_reader_hears_the_beginning_and_the_end_only(opened: Any) -> None:
    with opened(Script(pause=0.005)) as page:
        page.evaluate(
            """() => {
                window.heard = [];
                const status = document.getElementById('status');
                new MutationObserver(() => window.heard.push(status.textContent)).observe(
                    status, {childList: true, characterData: true, subtree: true});
            }"""
        )
        run(page)
        heard = page.evaluate("window.heard")
        assert len(heard) == 2 and heard[0].startswith("Running") and heard[1].startswith("Same tokens")
        live = page.evaluate(
            "[...document.querySelectorAll('[aria-live], [role=status], [role=alert]')].map(e => e.id)"
        )
        assert live == ["alert", "status"]
        names = page.evaluate("[...document.querySelectorAll('[role=region]')].map(e => e.ariaLabel)")
        assert names == ["Tokens with 3 drafts a step", "Tokens without drafts"]
        unnamed = page.evaluate(
            "[...document.querySelectorAll('input, select, textarea')].filter(e => !e.labels.length).map(e => e.id)"
        )
        assert unnamed == []


def test_nothing_is_wider_than_the_screen(opened: Any) -> None:
    script = Script(plain=[Token(1, "x" * 300), *tokens_of(TEXT)])
    with opened(script, width=360) as page:
        page.fill("#prompt", "y" * 500)
        run(page)
        page.click("summary")
        for width in (320, 360, 400, 768, 1280):
            page.set_viewport_size({"width": width, "height": 740})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert too_wide(page) == []
            assert page.evaluate("[...document.querySelectorAll('.text')].every(e => e.scrollWidth <= e.clientWidth)")
            assert too_small(page) == []


def too_wide(page: Any) -> list[str]:
    """Elements beyond the right edge, save those that scroll in themselves."""
    found: list[str] = page.evaluate(
        """[...document.querySelectorAll('body *')].filter(element => !element.closest('pre, .text *, .unseen')
            && element.getBoundingClientRect().right > innerWidth + 0.5).map(element => element.outerHTML)"""
    )
    return found


def too_small(page: Any) -> list[str]:
    """Controls that a finger would miss."""
    found: list[str] = page.evaluate(
        """[...document.querySelectorAll('button, select, .field input, .switch label')].filter(element => {
            const {width, height} = element.getBoundingClientRect();
            return width && (width < 40 || height < 38); }).map(element => element.outerHTML)"""
    )
    return found


def test_the_scheme_follows_the_system(opened: Any) -> None:
    def brightness(page: Any) -> int:
        colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    with opened(Script()) as page:
        assert brightness(page) > 700
    with opened(Script(), scheme="dark") as page:
        assert brightness(page) < 100
