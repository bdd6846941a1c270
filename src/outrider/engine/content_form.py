"""The form in which a chat template gets the contents of messages: text or parts, found by rendering marks.

A template may show text, parts, or both, and may differ from role to role. So the conversation is rendered with a mark
in place of each text. Where a mark is missing, another form is tried; a message whose text no form shows is refused.

    given        tried in this order
    "a"          text, one part
    ["a", "b"]   its parts, text, one part
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from outrider.core.errors import RequestError

FORMATS = ("auto", "string", "openai")
"""vLLM's values of chat_template_content_format: what the template shows, always text, always parts."""

_MARK = re.compile("Text[0-9]+of[0-9]+Z")
"""A mark in place of a text: the indices of its message and of its part."""
_NOTED_MARK = re.compile(rf"""["']text["']\s*:\s*["']({_MARK.pattern})""")
Message = dict[str, Any]
Form = Callable[[Sequence[str]], Any]
"""Makes a content from its texts."""


def as_text(texts: Sequence[str]) -> str:
    """The texts as one text."""
    return "\n".join(texts)


def as_parts(texts: Sequence[str]) -> list[dict[str, str]]:
    """One part for each text."""
    return [{"type": "text", "text": text} for text in texts]


def as_one_part(texts: Sequence[str]) -> list[dict[str, str]]:
    """A single part."""
    return as_parts([as_text(texts)])


class _Content:
    """The content of one message, and the forms to try."""

    def __init__(self, message: Message, content_format: str) -> None:
        content = message.get("content")
        self.texts = [part["text"] for part in content] if isinstance(content, list) else [content or ""]
        is_blank = not any(text.strip() for text in self.texts)
        self.forms: list[Form] = (
            [as_parts, as_text, as_one_part] if isinstance(content, list) else [as_text, as_one_part]
        )
        if content_format == "string" or (is_blank and content_format == "auto"):
            self.forms = [as_text]
        elif content_format == "openai":
            self.forms = [as_parts]

        self.num_tried = 0

    @property
    def has_more(self) -> bool:
        """True if there is another form to try."""
        return self.num_tried + 1 < len(self.forms)

    def formed(self, texts: Sequence[str]) -> Any:
        """A content of `texts` in the form that is tried now."""
        return self.forms[self.num_tried](texts)

    def is_shown(self, marks: Sequence[str], shown: set[str]) -> bool:
        """True if the marks of every text that is not blank are shown."""
        return all(mark in shown for mark, text in zip(marks, self.texts, strict=True) if text.strip())


def _shown_marks(rendered: str) -> set[str]:
    """The marks that are in the prompt, and not inside the notation of a list of parts. Takes time that grows with the
    prompt only: marks may be many."""
    return set(_MARK.findall(rendered)).difference(_NOTED_MARK.findall(rendered))


def arrange(
    messages: Sequence[Message], render: Callable[[list[Message]], str], *, content_format: str
) -> tuple[list[Message], bool]:
    """The messages, their contents in a form that the template shows, and True if that was seen.

    `render` renders messages, and raises RequestError if it cannot; marks may be the reason. Raises RequestError with
    the number of a message whose text would not be in the prompt.
    """
    contents = [_Content(message, content_format) if _has_content(message) else None for message in messages]
    marks = [
        [f"Text{index}of{place}Z" for place in range(len(content.texts))] if content is not None else []
        for index, content in enumerate(contents)
    ]

    def rendered_marks() -> str | None:
        try:
            return render(_formed(messages, contents, marks))
        except RequestError:
            return None

    while True:
        rendered = rendered_marks()
        shown = set() if rendered is None else _shown_marks(rendered)
        lost = [
            index
            for index, content in enumerate(contents)
            if content is not None and (rendered is None or not content.is_shown(marks[index], shown))
        ]
        left = [index for index in lost if contents[index].has_more]  # type: ignore[union-attr]
        if not left:
            break
        if rendered is None:
            left = _blamed(left, messages, contents, can_render=lambda: rendered_marks() is not None)
        for index in left:
            contents[index].num_tried += 1  # type: ignore[union-attr]
    if rendered is None:
        for content in filter(None, contents):
            content.forms, content.num_tried = [as_parts if content_format == "openai" else as_text], 0
        return _formed(messages, contents, None), False
    for index in lost:
        if not _may_be_lost(messages[index]):
            raise RequestError(_refusal(index, messages[index], content_format))
    return _formed(messages, contents, None), True


def _blamed(
    left: list[int],
    messages: Sequence[Message],
    contents: Sequence["_Content | None"],
    *,
    can_render: Callable[[], bool],
) -> list[int]:
    """The messages of one role, if their next form is enough for the template; else all that are left."""
    for role in dict.fromkeys(messages[index]["role"] for index in left):
        tried = [index for index in left if messages[index]["role"] == role]
        for index in tried:
            contents[index].num_tried += 1  # type: ignore[union-attr]
        is_enough = can_render()
        for index in tried:
            contents[index].num_tried -= 1  # type: ignore[union-attr]
        if is_enough:
            return tried
    return left


def _may_be_lost(message: Message) -> bool:
    """True for an answer with calls: many templates show these and not the text beside them."""
    return message["role"] == "assistant" and bool(message.get("tool_calls"))


def check_texts(messages: Sequence[Message], rendered: str) -> None:
    """Raises RequestError unless the text of each message is in the prompt as it is, where marks could not be used."""
    for index, message in enumerate(messages):
        if _has_content(message) and not _may_be_lost(message):
            texts = _Content(message, "auto").texts
            if not all(text.strip() in rendered for text in texts):
                raise RequestError(_refusal(index, message, "auto"))


def _refusal(index: int, message: Message, content_format: str) -> str:
    tried = "" if content_format == "auto" else f" with chat_template_content_format={content_format!r}"
    return (
        f"messages[{index}] does not reach the prompt: the chat template shows no text of the role "
        f"{message['role']!r} there{tried}. Use another role, or another chat template."
    )


def _has_content(message: Message) -> bool:
    return isinstance(message.get("content"), (str, list))


def _formed(
    messages: Sequence[Message], contents: Sequence[_Content | None], marks: Sequence[Sequence[str]] | None
) -> list[Message]:
    """The messages with contents in the next form to try; `marks` replace texts that are not blank."""
    formed = []
    for index, (message, content) in enumerate(zip(messages, contents, strict=True)):
        if content is None:
            formed.append(dict(message))
            continue
        texts = content.texts
        if marks is not None:
            texts = [mark if text.strip() else text for mark, text in zip(marks[index], texts, strict=True)]
        formed.append(message | {"content": content.formed(texts)})
    return formed
