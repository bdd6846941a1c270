"""Tools of a chat request: their fields, the template and grammar they need, and the reader of the answer."""

import secrets
import string
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from outrider.core import plugins
from outrider.core.sampling_params import StructuredOutputsParams
from outrider.server import reasoning_parsers, tool_parsers
from outrider.server.answer_reader import AnswerReader
from outrider.server.call_schema import list_schema
from outrider.server.chat_messages import CacheHint
from outrider.server.errors import refused
from outrider.server.fields import compact_json
from outrider.server.forced_calls import CallList, NamedCall
from outrider.server.reader import PromptEnd, Reader
from outrider.server.strict import Strict

FunctionName = Annotated[str, Field(pattern="^[a-zA-Z0-9_.-]{1,64}$")]


class Function(CacheHint):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="A JSON schema of the arguments.")
    strict: bool | None = None


class Tool(CacheHint):
    """A tool, in OpenAI's form."""

    type: Literal["function"]
    function: Function


class ChosenFunction(Strict):
    """The name of a function among the tools."""

    name: FunctionName


class ChosenTool(Strict):
    """Forces a call of this function."""

    type: Literal["function"]
    function: ChosenFunction


ToolChoice = Literal["none", "auto", "required"] | ChosenTool


class ToolUse:
    """The effect of a request's tools: what the template gets, the grammar if any, and the readers of the answer."""

    def __init__(
        self,
        tools: list[Tool] | None,
        choice: ToolChoice | None,
        *,
        is_parallel: bool,
        parser_name: str | None,
        template: str | None,
        reasoning_parser_name: str | None = None,
    ) -> None:
        """`parser_name`, `reasoning_parser_name` and `template` are the server's. Raises APIError for combinations
        that cannot work."""
        self.in_template: list[dict[str, Any]] | None = None
        self.grammar: StructuredOutputsParams | None = None
        self.is_parallel = is_parallel
        self._schemas = {tool.function.name: tool.function.parameters or {} for tool in tools or []}
        self._new_id = find_parser(parser_name).new_id if parser_name is not None else _plain_id
        self._forced: Callable[[], Reader] | None = None
        self._parser: type[Reader] | None = None
        self._reasoning_parser = (
            find_reasoning_parser(reasoning_parser_name) if reasoning_parser_name is not None else None
        )
        if not tools:
            if choice not in (None, "none", "auto"):
                raise refused(
                    "tool_choice forces a call, and there are no tools. Add tools, or leave tool_choice out.",
                    param="tool_choice",
                )
            return
        if choice == "none":
            return
        self.in_template = [tool.model_dump(exclude_none=True) for tool in tools]
        functions = [tool.function for tool in tools]
        if isinstance(choice, ChosenTool):
            self._name(functions, choice.function.name)
        elif choice == "required":
            schema = list_schema([function.model_dump() for function in functions], is_parallel=is_parallel)
            self.grammar = compact_json(schema)
            self._forced = lambda: CallList(self._schemas, self._new_id)
        else:
            self._let_the_model_choose(parser_name, template)

    @property
    def marks(self) -> set[str]:
        """Marks that the readers look for, which must be in the text even if they are special tokens."""
        if self._forced is not None:
            return set()
        parsers = [parser for parser in (self._parser, self._reasoning_parser) if parser is not None]
        return {mark for parser in parsers for mark in parser.marks}

    def reader(self, prompt_end: PromptEnd, *, includes_reasoning: bool = True) -> AnswerReader:
        """A new reader for one choice."""
        if self._forced is not None:
            return AnswerReader(tools=self._forced(), is_parallel=self.is_parallel)
        tools = self._parser(self._schemas, prompt_end) if self._parser is not None else None
        reasoning = None
        if self._reasoning_parser is not None and not (tools is not None and tools.reads_reasoning):
            reasoning = self._reasoning_parser({}, prompt_end)
        return AnswerReader(
            reasoning=reasoning, tools=tools, is_parallel=self.is_parallel, includes_reasoning=includes_reasoning
        )

    def _name(self, functions: list[Function], name: str) -> None:
        chosen = next((function for function in functions if function.name == name), None)
        if chosen is None:
            raise refused(
                f"tool_choice names {name!r}, which is not among the tools. Name one of them.", param="tool_choice"
            )
        self.grammar = compact_json(chosen.parameters or {"type": "object"})
        self._forced = lambda: NamedCall(name, self._new_id)

    def _let_the_model_choose(self, parser_name: str | None, template: str | None) -> None:
        if parser_name is None:
            raise refused(
                "tool_choice 'auto' needs a parser for this model's tool calls. Start the server with "
                f"--tool-call-parser ({', '.join(plugins.names(tool_parsers))}), or use 'required', 'none' or a name.",
                param="tool_choice",
            )
        if template is not None and "tools" not in template:
            raise refused(
                "the chat template does not use tools, so the model would not see them. Start the server with "
                "--chat-template FILE, or use tool_choice 'required' or a name.",
                param="tools",
            )
        self._parser = find_parser(parser_name)


def find_parser(name: str) -> type[Reader]:
    """The parser of tool calls by its file name. Raises ConfigError."""
    parser: type[Reader] = plugins.find(tool_parsers, name, what="tool_call_parser").Parser
    return parser


def find_reasoning_parser(name: str) -> type[Reader]:
    """The parser of reasoning by its file name. Raises ConfigError."""
    parser: type[Reader] = plugins.find(reasoning_parsers, name, what="reasoning_parser").Parser
    return parser


def _plain_id() -> str:
    """An id for a model whose format is not known: 9 letters or digits, which all chat templates accept."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))
