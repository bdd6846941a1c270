"""The request fields that endpoints share: types, limits, and conversion for the engine.

Names are OpenAI's, and vLLM's where OpenAI has none. The published schema is made from these classes (`openapi.py`).
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from outrider.core.sampling_defaults import SamplingDefaults
from outrider.core.sampling_params import (
    MAX_CHOICES,
    MAX_LOGIT_BIAS,
    MAX_LOGPROB_TOKEN_IDS,
    MAX_LOGPROBS,
    MAX_STOP_TOKEN_IDS,
    SamplingParams,
    StructuredOutputsParams,
)
from outrider.server.errors import refused
from outrider.server.not_offered import NeutralFields
from outrider.server.strict import OnlyFalse, OnlyTrue, Strict

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_SALT_CHARACTERS = 1024
INT32 = 2**31 - 1
"""The largest number in 32 bits with a sign."""


def _whole(value: Any) -> Any:
    """Converts 5.0 to 5: JSON has one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _whole_ids(values: Any) -> Any:
    """Applies `_whole` to each entry of a list, and is fast for lists that hold no floats."""
    has_float = isinstance(values, list) and float in set(map(type, values))
    return [_whole(value) for value in values] if has_float else values


def _few_biases(values: Any) -> Any:
    """Refuses a dict that is too long before each of its keys is looked at."""
    if isinstance(values, dict) and len(values) > MAX_LOGIT_BIAS:
        raise PydanticCustomError("too_long", f"it has {len(values)} entries; at most {MAX_LOGIT_BIAS} fit")
    return values


WHOLE = BeforeValidator(_whole)
"""Comes after the limits in an annotation, so that the published schema keeps them."""
WHOLE_IDS = BeforeValidator(_whole_ids)
MAX_IDS = 1 << 18
"""Maximum number of token ids in a list; parsing more would block the event loop."""
TokenId = Annotated[int, Field(ge=0, le=INT32, json_schema_extra={"x-limit": "vocabulary"})]
ModelName = Annotated[str, Field(json_schema_extra={"x-limit": "model"})]
RequestId = Annotated[str, Field(pattern="^[ -~]{1,128}$")]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
Stops = StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)]


class StreamOptions(Strict):
    """Options of a stream."""

    include_usage: bool | None = Field(None, description="The last chunk, without choices, has the usage.")
    continuous_usage_stats: bool | None = Field(None, description="Every chunk has the usage so far.")
    include_obfuscation: OnlyFalse | None = Field(None, description="Must be false: chunks are not padded.")

    @property
    def asks_for_usage(self) -> bool:
        """True if an option is on."""
        return bool(self.include_usage or self.continuous_usage_stats)


class JsonSchema(Strict):
    """A named JSON schema, in OpenAI's form."""

    name: Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextFormat(Strict):
    """The output is any text."""

    type: Literal["text"]


class JsonObjectFormat(Strict):
    """The output is a JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Strict):
    """The output is JSON that satisfies a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(Strict):
    """A constraint on the output: exactly one of these fields (vLLM's names); null is the same as absent."""

    json_: dict[str, Any] | str | None = Field(
        None, alias="json", description="A JSON schema that the output satisfies."
    )
    regex: str | None = Field(None, description="A regular expression that the whole output matches.")
    choice: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1024)] | None = None
    grammar: str | None = Field(None, description="A grammar in EBNF (llama.cpp's form) or Lark.")
    json_object: bool | None = Field(None, description="True: any JSON object. False asks for nothing.")
    disable_any_whitespace: OnlyFalse | None = None
    disable_additional_properties: OnlyFalse | None = None
    disable_fallback: bool | None = Field(None, description="Has no effect: there is one backend.")

    def to_params(self) -> StructuredOutputsParams:
        """Converts to the engine's parameters. Raises RequestError."""
        return StructuredOutputsParams(
            json=self.json_,
            regex=self.regex,
            choice=self.choice,
            grammar=self.grammar,
            json_object=bool(self.json_object),
        )


class QueueFields(Strict):
    """Fields of every endpoint whose requests the engine runs: the model, the order, and the cache."""

    model: ModelName | None = Field(None, description="Default: the served model.")
    priority: Annotated[int, Field(ge=-(2**31), le=INT32, json_schema_extra={"x-limit": "priority"}), WHOLE] | None = (
        Field(
            None,
            description="Requests with a lower value are scheduled first. Default 0. Others need a server with "
            "--scheduling-policy priority.",
        )
    )
    cache_salt: Annotated[str, Field(min_length=1, max_length=MAX_SALT_CHARACTERS)] | None = Field(
        None,
        description="The request shares cached prefixes with requests of the same salt only, so that no other caller "
        "can measure whether they are cached.",
    )


class GenerationFields(QueueFields):
    """Fields of every endpoint that generates: sampling and constraints."""

    temperature: Annotated[float, Field(ge=0.0, le=1e4)] | None = Field(
        None, description="Default: generation_config.json's, else 1. 0 chooses the most likely token."
    )
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=INT32), WHOLE] | None = Field(
        None, description="Number of most likely tokens to keep; 0 and -1 keep all."
    )
    min_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    repetition_penalty: Annotated[float, Field(ge=1e-3, le=1e3)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None
    logit_bias: (
        Annotated[
            dict[Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,8})$")], Annotated[float, Field(ge=-100.0, le=100.0)]],
            Field(max_length=MAX_LOGIT_BIAS, json_schema_extra={"x-limit": "vocabulary-keys"}),
            BeforeValidator(_few_biases),
        ]
        | None
    ) = Field(None, description="Token id to a value that is added to its logit.")
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1), WHOLE] | None = Field(
        None, description="A request that is repeated with its seed gives the same tokens."
    )
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_TOKEN_IDS - 8), WHOLE_IDS] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Field(ge=0, le=INT32), WHOLE] | None = Field(
        None, description="Minimum number of output tokens; at most max_tokens."
    )
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: OnlyTrue | None = Field(
        None, description="Must be true: the text is what the tokens decode to."
    )
    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=MAX_IDS), WHOLE_IDS] | None = None
    bad_words: Annotated[list[Annotated[str, Field(pattern="\\S")]], Field(max_length=32)] | None = None
    structured_outputs: StructuredOutputs | None = None
    truncate_prompt_tokens: (
        Annotated[int, Field(ge=-1, le=INT32, json_schema_extra={"not": {"const": 0}}), WHOLE] | None
    ) = Field(
        None, description="Keep only this many tokens at the end of the prompt; -1 keeps as many as the context allows."
    )
    num_speculative_tokens: Annotated[int, Field(ge=0, le=INT32), WHOLE] | None = Field(
        None,
        description="Maximum number of drafts per step for this request; 0 turns speculation off. Tokens are the same.",
    )
    stream: bool | None = None


class SamplingFields(GenerationFields, NeutralFields):
    """Fields of completions and chat completions alike: those of generation, and the form of the answer."""

    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    stop: Stops | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE] | None = None
    logprob_token_ids: Annotated[list[TokenId], Field(max_length=MAX_LOGPROB_TOKEN_IDS), WHOLE_IDS] | None = None
    response_format: ResponseFormat | None = None
    stream_options: StreamOptions | None = Field(None, description="Needs stream: true.")
    request_id: RequestId | None = Field(None, description="Becomes part of the answer's id.")
    return_token_ids: bool | None = Field(None, description="Adds token_ids to each choice, and prompt_token_ids.")
    return_token_origins: bool | None = Field(
        None, description='Adds origins ("draft" or "target" for each token) and token_texts to each choice.'
    )
    return_tokens_as_token_ids: bool | None = Field(
        None, description='Shows tokens in log-probabilities as "token_id:N".'
    )

    def to_params(
        self, *, max_tokens: int | None, logprobs: int | None, defaults: SamplingDefaults, echo: bool = False
    ) -> SamplingParams:
        """Converts to the engine's parameters; `defaults` apply to fields that are not given, except for max_tokens.
        Raises RequestError, or APIError for fields that exclude each other."""
        if self.stream_options is not None and self.stream_options.asks_for_usage and not self.stream:
            raise refused(
                "stream_options needs stream: true. Add it, or leave stream_options out.", param="stream_options"
            )
        bias = None if self.logit_bias is None else {int(key): value for key, value in self.logit_bias.items()}
        given = defaults.given | {"max_tokens": max_tokens}
        given |= {
            name: getattr(self, name)
            for name in _PASSED_ON
            if getattr(self, name) is not None  # null is the default
        }
        return SamplingParams(
            logprobs=logprobs,
            echo=echo,
            logit_bias=bias,
            stop=self.stop,
            structured_outputs=self.grammar(),
            **given,
        )

    def grammar(self) -> StructuredOutputsParams | None:
        """The constraint from structured_outputs or response_format; None if there is none."""
        asked = self.response_format
        if asked is None or isinstance(asked, TextFormat):
            return self.structured_outputs.to_params() if self.structured_outputs is not None else None
        if self.structured_outputs is not None:
            raise refused(
                "response_format and structured_outputs are both given. Give one of them.", param="response_format"
            )
        schema = {"type": "object"} if isinstance(asked, JsonObjectFormat) else asked.json_schema.schema_
        return compact_json(schema or {"type": "object"})


def compact_json(schema: dict[str, Any]) -> StructuredOutputsParams:
    """A constraint to JSON of `schema` without free whitespace, as OpenAI returns it: otherwise a model may emit blanks
    until max_tokens. The schema's own x-guidance (options of llguidance) is kept."""
    return StructuredOutputsParams(json={"x-guidance": {"whitespace_flexible": False}} | schema)


_PASSED_ON = (
    "n",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "skip_special_tokens",
    "prompt_logprobs",
    "logprob_token_ids",
    "allowed_token_ids",
    "bad_words",
    "truncate_prompt_tokens",
    "priority",
    "num_speculative_tokens",
)
"""Fields that go to SamplingParams unchanged."""
