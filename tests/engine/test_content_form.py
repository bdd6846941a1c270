"""Contents of messages reach the prompt whatever form the template wants, or the message is refused by number."""

from typing import Any

import pytest

from outrider.core.errors import RequestError
from outrider.engine import content_form
from outrider.engine.chat import ChatOptions, encode_chat
from outrider.engine.tokenizer import Tokenizer

EACH = "{% for m in messages %}[{{ m.role }}]"
PARTS = EACH + "{% for c in m.content %}{% if c.type == 'text' %}<{{ c.text }}>{% endif %}{% endfor %}{% endfor %}"
TEXT = EACH + "{{ m.content | trim }}{% endfor %}"
CONCATENATED = EACH + "{{ m.content + '!' }}{% endfor %}"
BOTH = (
    EACH + "{% if m.content is string %}={{ m.content }}{% else %}"
    "{% for c in m.content %}<{{ c.text }}>{% endfor %}{% endif %}{% endfor %}"
)
MIXED = EACH + (
    "{% if m.role == 'system' %}{{ m.content + '' }}{% else %}"
    "{% for c in m.content %}<{{ c.text }}>{% endfor %}{% endif %}{% endfor %}"
)
FIRST_PART = EACH + "{{ m.content if m.content is string else m.content[0].text }}{% endfor %}"
FIRST_OF_PARTS = EACH + "<{{ m.content[0].text }}>{% endfor %}"
JSON = "{{ messages | tojson }}"
NO_SYSTEM = "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}"
ONLY_LAST = "{{ messages[-1].content }}"
ONE = [{"type": "text", "text": "why so"}]
TWO = [*ONE, {"type": "text", "text": "and how"}]


def text_of(tokenizer: Tokenizer, template: str, *messages: Any, **options: Any) -> str:
    found = [message if isinstance(message, dict) else {"role": "user", "content": message} for message in messages]
    return tokenizer.decode(encode_chat(tokenizer, found, ChatOptions(chat_template=template, **options)))


@pytest.mark.parametrize(
    ("template", "content", "expected"),
    [
        (PARTS, "why so", "[user]<why so>"),
        (PARTS, ONE, "[user]<why so>"),
        (PARTS, TWO, "[user]<why so><and how>"),
        (TEXT, " why so", "[user]why so"),
        (TEXT, TWO, "[user]why so\nand how"),
        (CONCATENATED, TWO, "[user]why so\nand how!"),
        (BOTH, "why so", "[user]=why so"),
        (BOTH, TWO, "[user]<why so><and how>"),
        (FIRST_PART, TWO, "[user]why so\nand how"),
        (FIRST_OF_PARTS, TWO, "[user]<why so\nand how>"),
        (JSON, TWO, '[{"role": "user", "content": "why so\\nand how"}]'),
        (PARTS, "", "[user]"),
        (TEXT, [{"type": "text", "text": " "}], "[user]"),
    ],
)
def test_a_text_is_in_the_prompt_in_the_form_that_the_template_shows(
    byte_level: Tokenizer, template: str, content: Any, expected: str
) -> None:
    assert text_of(byte_level, template, content) == expected


def test_each_message_has_the_form_that_is_shown_for_its_role(byte_level: Tokenizer) -> None:
    system = {"role": "system", "content": ONE}
    assert text_of(byte_level, MIXED, system, "yes", TWO) == "[system]why so[user]<yes>[user]<why so><and how>"


@pytest.mark.parametrize(
    ("template", "content", "content_format", "expected"),
    [
        (BOTH, "why so", "openai", "[user]<why so>"),
        (BOTH, TWO, "openai", "[user]<why so><and how>"),
        (BOTH, TWO, "string", "[user]=why so\nand how"),
        (JSON, ONE, "string", '[{"role": "user", "content": "why so"}]'),
    ],
)
def test_a_form_can_be_set(
    byte_level: Tokenizer, template: str, content: Any, content_format: str, expected: str
) -> None:
    assert text_of(byte_level, template, content, chat_template_content_format=content_format) == expected


@pytest.mark.parametrize(
    ("template", "messages", "options", "says"),
    [
        (NO_SYSTEM, [{"role": "system", "content": "Be brief."}, "a"], {}, r"messages\[0\] does not reach .*'system'"),
        (NO_SYSTEM, ["a", {"role": "system", "content": ONE}], {}, r"messages\[1\] does not reach the prompt"),
        (ONLY_LAST, ["a", "b"], {}, r"messages\[0\] does not reach the prompt"),
        ("{{ messages | length }}", ["a"], {}, r"messages\[0\] does not reach the prompt"),
        (PARTS, ["a"], {"chat_template_content_format": "string"}, r"with chat_template_content_format='string'"),
        (TEXT, ["a"], {"chat_template_content_format": "openai"}, r"with chat_template_content_format='openai'"),
    ],
)
def test_a_message_that_would_be_lost_is_refused_by_number(
    byte_level: Tokenizer, template: str, messages: list[Any], options: dict[str, Any], says: str
) -> None:
    """A text counts as lost even if the same letters are elsewhere in the prompt."""
    with pytest.raises(RequestError, match=says):
        text_of(byte_level, template, *messages, **options)


def test_text_beside_calls_may_be_left_out(byte_level: Tokenizer) -> None:
    template = (
        EACH
        + "{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    call = {"function": {"name": "look", "arguments": {}}}
    answer = {"role": "assistant", "content": "I will look.", "tool_calls": [call]}
    assert text_of(byte_level, template, "a", answer) == "[user]a[assistant]look"
    with pytest.raises(RequestError, match=r"messages\[0\]"):
        text_of(byte_level, template, {"role": "user", "content": "b", "tool_calls": [call]})


def test_a_continued_message_of_parts_is_left_open(byte_level: Tokenizer) -> None:
    template = PARTS.replace("<{{ c.text }}>", "{{ c.text }}|")
    messages = ["a", {"role": "assistant", "content": "b"}]
    assert text_of(byte_level, template, *messages, continue_final_message=True) == "[user]a|[assistant]b"


def test_a_template_that_refuses_marks_is_checked_with_the_texts_themselves(byte_level: Tokenizer) -> None:
    picky = "{% for m in messages %}{% if m.content != 'a' %}{{ raise_exception('only a') }}{% endif %}"
    assert text_of(byte_level, picky + "{{ m.content }}{% endfor %}", "a") == "a"
    assert text_of(byte_level, picky + "{{ m.content }}{% endfor %}", [{"type": "text", "text": "a"}]) == "a"
    with pytest.raises(RequestError, match=r"messages\[0\] does not reach the prompt"):
        text_of(byte_level, picky + "{% endfor %}", "a")
    with pytest.raises(RequestError, match="the chat template refuses these messages: only a"):
        text_of(byte_level, picky + "{{ m.content }}{% endfor %}", "b")


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(
        RequestError, match=r"chat_template_content_format='parts' is not known\. Use auto, string, openai"
    ):
        ChatOptions(chat_template_content_format="parts")


def test_a_prompt_is_searched_once_whatever_the_number_of_its_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    searched, shown_marks = [], content_form._shown_marks
    monkeypatch.setattr(content_form, "_shown_marks", lambda text: searched.append(len(text)) or shown_marks(text))
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}] * 50} for _ in range(400)]

    def render(formed: list[dict[str, Any]]) -> str:
        return "".join(part["text"] for message in formed for part in message["content"])

    arranged, is_seen = content_form.arrange(messages, render, content_format="auto")
    assert is_seen and arranged == messages and len(searched) == 1
