"""Tools of a chat request: their fields, the template and grammar they need, and the parser of the answer."""

import secrets
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from outrider.core import plugins
from outrider.core.sampling_params import StructuredOutputsParams
from outrider.server import tool_parsers
from outrider.server.call_schema import list_schema
from outrider.server.chat_messages import CacheHint
from outrider.server.errors import refused
from outrider.server.fields import compact_json
from outrider.server.strict import Strict
from outrider.server.tool_calls import Call, CallList, NamedCall, ToolParser

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
    """The effect of a request's tools: what the template gets, the grammar if any, and the parser of the answer."""

    def __init__(
        self,
        tools: list[Tool] | None,
        choice: ToolChoice | None,
        *,
        is_parallel: bool,
        parser_name: str | None,
        template: str | None,
    ) -> None:
        """`parser_name` and `template` are the server's. Raises APIError for combinations that cannot work."""
        self.in_template: list[dict[str, Any]] | None = None
        self.grammar: StructuredOutputsParams | None = None
        self.new_parser: Callable[[], ToolParser] | None = None
        self.is_parallel = is_parallel
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
            self.new_parser = CallList
        else:
            self._let_the_model_choose(parser_name, template)

    def _name(self, functions: list[Function], name: str) -> None:
        chosen = next((function for function in functions if function.name == name), None)
        if chosen is None:
            raise refused(
                f"tool_choice names {name!r}, which is not among the tools. Name one of them.", param="tool_choice"
            )
        self.grammar = compact_json(chosen.parameters or {"type": "object"})
        self.new_parser = lambda: NamedCall(name)

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
        self.new_parser = find_parser(parser_name)


def find_parser(name: str) -> Callable[[], ToolParser]:
    """The parser class by its file name. Raises ConfigError."""
    parser: Callable[[], ToolParser] = plugins.find(tool_parsers, name, what="tool_call_parser").Parser
    return parser


class AnswerText:
    """Separates the text of one choice into content and tool calls."""

    def __init__(self, use: ToolUse) -> None:
        self._parser = use.new_parser() if use.new_parser is not None else None
        self._is_parallel = use.is_parallel
        self.num_calls = 0

    def push(self, text: str, *, is_last: bool) -> tuple[str, list[dict[str, Any]]]:
        """Adds text; returns the content and the calls (OpenAI's form, with `index`) that are complete."""
        if self._parser is None:
            return text, []
        pieces = self._parser.push(text) + (self._parser.finish() if is_last else [])
        content = "".join(piece for piece in pieces if isinstance(piece, str))
        calls = []
        for piece in pieces:
            if isinstance(piece, Call) and (self._is_parallel or self.num_calls == 0):
                calls.append(_call_body(piece, self.num_calls))
                self.num_calls += 1
        return content, calls

    def finish_reason(self, reason: str | None) -> str | None:
        """The finish reason to report: "tool_calls" if the output stopped after calls."""
        return "tool_calls" if reason == "stop" and self.num_calls else reason


def _call_body(call: Call, index: int) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": index, "id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
