"""Chat templates: compiled and rendered in a sandbox with limits of time and of size.

Others wrote the model's template, and perhaps the request brought one. The result is that of transformers. A
template runs in a thread of this process, because a process of its own would cost each conversation its way there and
back, several times. So the sandbox bounds what one operation can make, and the interpreter's trace, set in this thread
alone, ends what runs for longer than it may: a loop of short operations cannot pass it by.
"""

import copy
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from types import FrameType
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from outrider.core.errors import RequestError

SECONDS = 10.0
"""Time that a conversation has to be rendered, all tries together."""
MAX_CHARACTERS = 1 << 24
"""Maximum length of a text that a template makes."""
_MAX_ITEMS = 1 << 17
"""Maximum length of a list that a template makes."""
_MAX_BITS = 4096
"""Maximum length of an integer that a template makes."""
_MAX_INDENT = 64
_MAX_WIDTH = 9999
"""Maximum of an argument that says how wide a text shall be."""
_NUM_KEPT = 32
"""Number of compiled templates that are kept."""

_GROWING = {"replace", "join", "indent", "translate", "wordwrap"}
"""Filters and methods whose result can be as long as the product of two arguments."""
_WIDENING = {"center", "ljust", "rjust", "zfill", "expandtabs", "indent", "batch", "slice"}
"""Those with an argument that says how wide or long the result shall be."""
_FORMATTING = {"format", "format_map", "strftime_now"}
_REMOVED = ("urlize", "pprint", "xmlattr")
"""Filters for pages, which take long for some texts."""
_WIDTH = re.compile(r"%[-+ #0\d.]*(\d{5}|\*)|\{[^{}]*:[^{}]*(\d{5}|\{)")
"""A width of five digits or more in a format, or one that is an argument."""
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "


class TemplateTooLargeError(TemplateError):
    """A template makes something larger than it may."""


class TemplateTimeError(RequestError):
    """A template takes longer than it may."""


class Deadline:
    """The end of the time for one conversation."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raises TemplateTimeError once the time is over."""
        if time.monotonic() > self._end:
            raise TemplateTimeError(
                f"the chat template takes longer than {self.seconds:g} s. Shorten the conversation, or the template."
            )

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Has every call, and every line of a template, check the time while the block runs in this thread."""
        self.check()

        def on_line(frame: FrameType, event: str, argument: Any) -> Any:
            self.check()
            return on_line

        def on_call(frame: FrameType, event: str, argument: Any) -> Any:
            self.check()
            return on_line if frame.f_code.co_filename == "<template>" else None

        before = sys.gettrace()
        sys.settrace(on_call)
        try:
            yield
        finally:
            sys.settrace(before)


def _check_length(length: int, most: int) -> None:
    if length > most:
        raise TemplateTooLargeError(f"it makes a text or list of {length}, and {most} is the maximum")


def _check_call(name: str, arguments: Sequence[Any]) -> None:
    """Raises TemplateTooLargeError if a filter or method could make something too large of its arguments; the first is
    what it is applied to."""
    if name in _GROWING:
        lengths = sorted((len(one) for one in arguments if isinstance(one, (str, list, tuple, dict))), reverse=True)
        if len(lengths) > 1:
            _check_length(lengths[0] * lengths[1] >> 4, MAX_CHARACTERS)
    if name in _WIDENING:
        _check_length(max((one for one in arguments[1:] if isinstance(one, int)), default=0), _MAX_WIDTH)
    if name in _FORMATTING:
        text = next((one for one in arguments if isinstance(one, str)), "")
        if _WIDTH.search(text):
            raise TemplateTooLargeError("it formats with a width of five digits, or with one that is an argument")


def _sized(made: Any) -> Any:
    """A list, tuple or dict that a template has made, if it is small with all that it holds. A list that holds another
    twice, which holds another twice, would be short, and its text without end."""
    left, num = [made], 0
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, (list, tuple)):
            left += one
        num += 1
        if num + len(left) > _MAX_ITEMS:  # not a call: this line runs for each item
            _check_length(num + len(left), _MAX_ITEMS)
    return made


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that checks its arguments. It passes on what jinja has noted on the function."""

    def checked(*arguments: Any, **named: Any) -> Any:
        _check_call(name, [*arguments, *named.values()])
        return function(*arguments, **named)

    checked.__dict__.update(function.__dict__)
    return checked


def _joined(pieces: Iterable[Any]) -> str:
    """The pieces as one text of bounded length."""
    texts, length = [], 0
    for piece in pieces:
        text = piece if isinstance(piece, str) else str(piece)
        length += len(text)
        _check_length(length, MAX_CHARACTERS)
        texts.append(text)
    return "".join(texts)


class _Generator(CodeGenerator):
    """Joins texts (a ~ b) by the environment's bounded function."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - jinja's name
        self.write("environment.concat((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _visit_sized(self, visit: Callable[[Any, Frame], None], node: nodes.Expr, frame: Frame) -> None:
        self.write("environment.sized(")
        visit(node, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802 - jinja's name
        self._visit_sized(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802 - jinja's name
        self._visit_sized(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802 - jinja's name
        if node.ctx == "load":
            self._visit_sized(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which no single operation makes something large."""

    code_generator_class = _Generator
    concat = staticmethod(_joined)
    sized = staticmethod(_sized)
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The result of an operation, whose size is looked at first."""
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * max(right, 1) if operator == "**" else left.bit_length() + right.bit_length()
            _check_length(bits, _MAX_BITS)
        elif operator == "*":
            sequence, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(times, int) and isinstance(sequence, (str, list, tuple)):
                most = MAX_CHARACTERS if isinstance(sequence, str) else _MAX_ITEMS
                _check_length(len(sequence) * max(times, 0), most)
        elif operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            _check_length(len(left) + len(right), MAX_CHARACTERS if isinstance(left, str) else _MAX_ITEMS)
        elif operator == "%" and isinstance(left, str):
            _check_call("format", [left])
        result = super().call_binop(context, operator, left, right)
        return _sized(result) if isinstance(result, (list, tuple)) else result

    def call(self, context: Any, obj: Any, *arguments: Any, **named: Any) -> Any:
        """The result of a call in a template, whose arguments are looked at first."""
        own = getattr(getattr(obj, "__wrapped__", obj), "__self__", None)
        _check_call(getattr(obj, "__name__", ""), [own, *arguments, *named.values()])
        if isinstance(obj, type):  # dict, namespace
            _sized([*arguments, *named.values()])
        return super().call(context, obj, *arguments, **named)


class _Generation(Extension):
    """The tag {% generation %}, which marks what a model wrote, for training. Its content is passed on."""

    tags = {"generation"}  # noqa: RUF012 - the name and kind that jinja asks for

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements between the two tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    _check_length(max(len(indent) if isinstance(indent, str) else indent or 0, 0), _MAX_INDENT)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _sandbox() -> _Sandbox:
    made = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.filters["tojson"] = _tojson
    for name in _REMOVED:
        del made.filters[name]
    for name in (_GROWING | _WIDENING | _FORMATTING) & made.filters.keys():
        made.filters[name] = _bounded(name, made.filters[name])
    del made.globals["lipsum"]
    made.globals["raise_exception"] = _raise_exception
    made.globals["strftime_now"] = _strftime_now
    return made


@lru_cache(maxsize=_NUM_KEPT)
def _compiled(source: str) -> Template:
    return _sandbox().from_string(source)


def render(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    deadline: Deadline,
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    **variables: Any,
) -> str:
    """The text of a conversation under the template `source`, as transformers' apply_chat_template gives it.

    Raises TemplateTimeError after the deadline, jinja2.TemplateError or another Exception if the template refuses.
    """
    with deadline.enforced():
        template = _compiled(source)
        last = ""
        if continue_final_message:
            messages, last = _marked(messages)
        text = template.render(
            messages=messages,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            **variables,
        )
    return _cut(text, last) if continue_final_message else text


def _marked(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Any], str]:
    """The messages, a mark at the end of the last text, and that text."""
    marked: list[Any] = copy.deepcopy(list(messages))
    content = marked[-1].get("content")
    if isinstance(content, str):
        marked[-1]["content"] = content + _TAG
        return marked, content
    for part in reversed(content or ()):
        if "text" in part:
            text = part["text"]
            part["text"] = text + _TAG
            return marked, text
    raise ValueError("continue_final_message is set, and the last message has no text to continue")


def _cut(text: str, last: str) -> str:
    """The rendered text up to the mark; without the blanks before it if the template has trimmed the mark."""
    place = text.rfind(_TAG.strip())
    if place < 0 or last.strip() not in text:
        raise ValueError("continue_final_message is set, and the template does not show the last message as it is")
    return text[:place] if text.startswith(_TAG, place) else text[:place].rstrip()
