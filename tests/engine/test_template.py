"""Chat templates that somebody made to do harm: each ends soon with an error in words, and takes no memory."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from outrider.core.errors import RequestError
from outrider.engine.chat import ChatOptions, encode_chat
from outrider.engine.template import Deadline, TemplateTimeError, render
from outrider.engine.tokenizer import Tokenizer

TALK = [{"role": "user", "content": "hi"}]
FOR, END = "{% for a in range(99999) %}", "{% endfor %}"
ENDLESS = FOR * 3 + END * 3


def grown(start: str, change: str, end: str = "") -> str:
    """A template that changes a value 60 times."""
    return start + "{% for a in range(60) %}" + change + "{% endfor %}" + end


SLOW = [
    ENDLESS,
    "{% macro m(x) %}{{ m(x) if x < 0 else '' }}{% endmacro %}" + ENDLESS,
    "{% set n = namespace(x=1) %}" + FOR * 2 + "{% set n.x = n.x + 1 %}" + END * 2,
    "{{ range(99999)|map('string')|map('length')|sum }}" * 500,
]
LARGE = [
    "{{ 'a' * 10000000000 }}",
    "{{ 10000000000 * 'a' }}",
    "{{ [0] * 10000000000 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 2 ** 100000000 }}",
    grown("{% set n = namespace(x='aaaa') %}", "{% set n.x = n.x + n.x %}"),
    grown("{% set n = namespace(x='aaaa') %}", "{% set n.x = n.x ~ n.x %}"),
    grown("{% set n = namespace(x='aaaa') %}", "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}"),
    grown("{% set n = namespace(x=[1]) %}", "{% set n.x = n.x + n.x %}"),
    grown("{% set n = namespace(x=[1]) %}", "{% set n.x = [n.x, n.x] %}", "{{ n.x|tojson }}"),
    grown("{% set n = namespace(x={}) %}", "{% set n.x = {'a': n.x, 'b': n.x} %}", "{{ n.x }}"),
    grown("{% set n = namespace(x=(1,)) %}", "{% set n.x = (n.x, n.x) %}", "{{ n.x == n.x }}"),
    grown("{% set n = namespace(x={}) %}", "{% set n.x = dict(a=n.x, b=n.x) %}", "{{ n.x }}"),
    grown("{% set n = namespace(x=3) %}", "{% set n.x = n.x * n.x %}"),
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 1000000000) }}",
    "{{ 'a'.center(1000000000) }}",
    "{{ 'a'|center(1000000000) }}",
    "{{ 'a'.ljust(1000000000) }}",
    "{{ '1'.zfill(1000000000) }}",
    "{{ 'a\nb'|indent(1000000000) }}",
    "{{ [1]|batch(1000000000, 'x')|list }}",
    "{{ [1]|tojson(indent=1000000000) }}",
    "{% set a = 'a' * 9000000 %}{{ a|replace('a', a) }}",
    "{% set a = 'a' * 9000000 %}{{ a.replace('a', a) }}",
    "{% set a = 'a' * 9000000 %}{{ range(99999)|list|join(a) }}",
    "{{ lipsum(n=100000) }}",
    "{% for a in range(99999) %}" + "a" * 999 + "{% endfor %}",
    "{% for a in range(999999999) %}{% endfor %}",
]
ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(a=1) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ raise_exception.__globals__ }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as x %}",
]


@pytest.mark.parametrize("source", SLOW, ids=range(len(SLOW)))
def test_a_template_ends_with_its_time(source: str) -> None:
    begin = time.monotonic()
    with pytest.raises(TemplateTimeError, match=r"takes longer than 0\.2 s"):
        render(source, TALK, deadline=Deadline(0.2))
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("source", LARGE, ids=range(len(LARGE)))
def test_nothing_large_is_made(source: str) -> None:
    begin = time.monotonic()
    with pytest.raises((TemplateError, OverflowError)):
        render(source, TALK, deadline=Deadline(8.0))
    assert time.monotonic() - begin < 8


@pytest.mark.parametrize("source", ESCAPES)
def test_nothing_leaves_the_sandbox(source: str) -> None:
    try:
        text = render(source, TALK, deadline=Deadline(2.0))
    except (TemplateError, TypeError, AttributeError):
        return
    assert text == "" and TALK == [{"role": "user", "content": "hi"}]


def test_all_tries_of_a_conversation_share_the_time(byte_level: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks are rendered in several forms; other threads go on, and are not traced."""
    monkeypatch.setattr("outrider.engine.template.SECONDS", 0.3)
    monkeypatch.setattr(Deadline.__init__, "__defaults__", (0.3,))
    begin = time.monotonic()
    counts = []
    other = threading.Thread(target=lambda: counts.extend(range(1000)))
    other.start()
    with pytest.raises(RequestError, match="takes longer"):
        encode_chat(byte_level, TALK, ChatOptions(chat_template="{{ messages[0].content }}" + ENDLESS))
    other.join()
    assert len(counts) == 1000 and time.monotonic() - begin < 3


def test_ordinary_templates_may_do_what_they_do(byte_level_directory: Path) -> None:
    source = (
        "{%- set n = namespace(a=[], i=0) -%}"
        "{% generation %}{{ '**' ~ '%s and %d' % ('12345', 3) ~ '**' }}{% endgeneration %}"
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
        "{% set n.a = n.a + [m.content] %}{% endfor %}"
        "{{ n.a|join(', ') }}|{{ '  ' * 3 }}|{{ {'a': [1, 2]}|tojson(indent=2) }}|{{ 'x{}y'.format(20240101) }}"
        "{{ messages[0].content.replace('a', 'b')|indent(4)|upper|trim }}{{ (1, 2)|list|length }}{{ 7 % 4 + 2 ** 3 }}"
        "{{ strftime_now('%Y')|length }}"
    )
    messages: list[Any] = [{"role": "user", "content": "aa"}, {"role": "user", "content": "B"}]
    from transformers import PreTrainedTokenizerFast

    oracle = PreTrainedTokenizerFast.from_pretrained(byte_level_directory)
    wanted = oracle.apply_chat_template(messages, chat_template=source, tokenize=False)
    assert render(source, messages, deadline=Deadline(), **oracle.special_tokens_map) == wanted
