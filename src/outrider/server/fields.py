"""The request fields that endpoints share: types, limits, and conversion for the engine.

Names are OpenAI's, and vLLM's where OpenAI has none. Unknown fields are refused by name; the error for a well-known one
says what to use instead. The published schema is made from these classes (`openapi.py`).
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
_INT32 = 2**31 - 1


def _whole(value: Any) -> Any:
    """Converts 5.0 to 5: JSON has one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _whole_ids(values: Any) -> Any:
    """Applies `_whole` to each entry of a list, and is fast for lists that hold no floats."""
    has_float = isinstance(values, list) and float in set(map(type, values))
    return [_whole(value) for value in values] if has_float else values


WHOLE = BeforeValidator(_whole)
"""Comes after the limits in an annotation, so that the published schema keeps them."""
WHOLE_IDS = BeforeValidator(_whole_ids)
MAX_IDS = 1 << 18
"""Maximum number of token ids in a list; parsing more would block the event loop."""
TokenId = Annotated[int, Field(ge=0, le=_INT32, json_schema_extra={"x-limit": "vocabulary"})]
ModelName = Annotated[str, Field(json_schema_extra={"x-limit": "model"})]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
Stops = StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)]


class Strict(BaseModel):
    """Base of all request bodies: refuses unknown fields, values of another type, and NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)


class StreamOptions(Strict):
    """Options of a stream."""

    include_usage: bool | None = Field(None, description="The last chunk, without choices, has the usage.")
    continuous_usage_stats: bool | None = Field(None, description="Every chunk has the usage so far.")
    include_obfuscation: Literal[False] | None = Field(None, description="Must be false: chunks are not padded.")


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
    """A constraint on the output: exactly one of these fields (vLLM's names)."""

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "maxProperties": 1,
        }  # no field below may be null, so exactly one is given
    )

    json_: dict[str, Any] | str = Field({}, alias="json", description="A JSON schema that the output satisfies.")
    regex: str = Field("", description="A regular expression that the whole output matches.")
    choice: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1024)] = []
    grammar: str = Field("", description="A grammar in EBNF (llama.cpp's form) or Lark.")
    json_object: Literal[True] = True

    def to_params(self) -> StructuredOutputsParams:
        """Converts to the engine's parameters. Raises RequestError."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if "json_" in given:
            given["json"] = given.pop("json_")
        return StructuredOutputsParams(**given)


class GenerationFields(Strict):
    """Fields of every endpoint that generates: sampling and constraints."""

    model: ModelName | None = Field(None, description="Default: the served model.")
    temperature: Annotated[float, Field(ge=0.0, le=1e4)] | None = Field(
        None, description="Default 1. 0 chooses the most likely token."
    )
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=_INT32), WHOLE] | None = Field(
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
        ]
        | None
    ) = Field(None, description="Token id to a value that is added to its logit.")
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1), WHOLE] | None = Field(
        None, description="A request that is repeated with its seed gives the same tokens."
    )
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_TOKEN_IDS - 8), WHOLE_IDS] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Field(ge=0, le=_INT32), WHOLE] | None = Field(
        None, description="Minimum number of output tokens; at most max_tokens."
    )
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: Literal[True] | None = Field(
        None, description="Must be true: the text is what the tokens decode to."
    )
    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=MAX_IDS), WHOLE_IDS] | None = None
    bad_words: Annotated[list[Annotated[str, Field(pattern="\\S")]], Field(max_length=32)] | None = None
    structured_outputs: StructuredOutputs | None = None
    truncate_prompt_tokens: (
        Annotated[int, Field(ge=-1, le=_INT32, json_schema_extra={"not": {"const": 0}}), WHOLE] | None
    ) = Field(
        None, description="Keep only this many tokens at the end of the prompt; -1 keeps as many as the context allows."
    )
    priority: Annotated[int, Field(ge=-(2**31), le=_INT32), WHOLE] | None = Field(
        None, description="Requests with a lower value are scheduled first. Default 0."
    )
    num_speculative_tokens: Annotated[int, Field(ge=0, le=_INT32), WHOLE] | None = Field(
        None,
        description="Maximum number of drafts per step for this request; 0 turns speculation off. Tokens are the same.",
    )
    stream: bool | None = None


class SamplingFields(GenerationFields):
    """Fields of completions and chat completions alike: those of generation, and the form of the answer."""

    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    stop: Stops | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE] | None = None
    logprob_token_ids: Annotated[list[TokenId], Field(max_length=MAX_LOGPROB_TOKEN_IDS), WHOLE_IDS] | None = None
    response_format: ResponseFormat | None = None
    stream_options: StreamOptions | None = Field(None, description="Needs stream: true.")
    request_id: Annotated[str, Field(pattern="^[ -~]{1,128}$")] | None = Field(
        None, description="Becomes part of the answer's id."
    )
    return_token_ids: bool | None = Field(None, description="Adds token_ids to each choice, and prompt_token_ids.")
    return_token_origins: bool | None = Field(
        None, description='Adds origins ("draft" or "target" for each token) and token_texts to each choice.'
    )
    return_tokens_as_token_ids: bool | None = Field(
        None, description='Shows tokens in log-probabilities as "token_id:N".'
    )
    user: str | None = Field(None, description="Accepted and ignored.")

    def to_params(self, *, max_tokens: int | None, logprobs: int | None, echo: bool = False) -> SamplingParams:
        """Converts to the engine's parameters. Raises RequestError, or APIError for fields that exclude each other."""
        if self.stream_options is not None and not self.stream:
            raise refused(
                "stream_options needs stream: true. Add it, or leave stream_options out.", param="stream_options"
            )
        bias = None if self.logit_bias is None else {int(key): value for key, value in self.logit_bias.items()}
        given = {
            name: getattr(self, name)
            for name in _PASSED_ON
            if getattr(self, name) is not None  # null is the default
        }
        return SamplingParams(
            max_tokens=max_tokens,
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

NOT_OFFERED = {
    "best_of": "Use n and choose among the choices yourself.",
    "suffix": "Insertion is not supported. Put the text into the prompt.",
    "use_beam_search": "Beam search is not supported.",
    "length_penalty": "It belongs to beam search, which is not supported.",
    "early_stopping": "It belongs to beam search, which is not supported.",
    "cache_salt": "All callers share the prefix cache. Turn it off with --no-enable-prefix-caching.",
    "kv_transfer_params": "Prefill and decoding cannot run on different servers.",
    "vllm_xargs": "Custom arguments are not supported.",
    "repetition_detection": "Use repetition_penalty, or stop.",
    "thinking_token_budget": "Use max_tokens.",
    "mm_processor_kwargs": "Only text is supported.",
    "logits_processors": "Use logit_bias, bad_words or allowed_token_ids.",
    "guided_json": 'Use structured_outputs: {"json": …}.',
    "guided_regex": 'Use structured_outputs: {"regex": …}.',
    "guided_choice": 'Use structured_outputs: {"choice": …}.',
    "guided_grammar": 'Use structured_outputs: {"grammar": …}.',
    "guided_decoding_backend": "llguidance is the only backend. Leave the field out.",
    "structural_tag": "Use structured_outputs with a grammar.",
    "functions": "Use tools.",
    "function_call": "Use tool_choice.",
    "audio": "Only text is supported.",
    "modalities": "Only text is supported.",
    "prediction": "The drafter is chosen when the server starts (--speculative-config).",
    "reasoning_effort": "Use chat_template_kwargs with the name that the model's chat template has for it.",
    "reasoning": "Use chat_template_kwargs with the name that the model's chat template has for it.",
    "service_tier": "There is only one tier. Leave the field out.",
    "store": "The server stores nothing. Leave the field out.",
    "metadata": "The server stores nothing. Leave the field out.",
    "verbosity": "Ask for it in a message.",
    "web_search_options": "Web search is not supported. Offer a tool for it.",
    "safety_identifier": "Requests are not checked against it. Leave the field out.",
    "prompt_cache_key": "The prefix cache finds equal prefixes by itself. Leave the field out.",
}
"""Fields of OpenAI or vLLM that this server does not offer, and what to do instead."""
