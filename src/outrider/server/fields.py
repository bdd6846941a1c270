"""The fields that completions and chat completions share: their types and limits, and what they mean to the engine.

Names are OpenAI's, and vLLM's where OpenAI has none. A field that is not here is refused by name; the well-known ones
with what to do instead. The schema of these classes is the published one (`openapi.py`).
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
    """JSON has one kind of number: 5.0 is an integer there."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _whole_ids(values: Any) -> Any:
    """The same for a list, at the price of a glance where it has no such number."""
    has_float = isinstance(values, list) and float in set(map(type, values))
    return [_whole(value) for value in values] if has_float else values


WHOLE = BeforeValidator(_whole)
"""Stands behind the limits, so that the published schema keeps them."""
WHOLE_IDS = BeforeValidator(_whole_ids)
MAX_IDS = 1 << 18
"""Most token ids of a list; reading more would keep the event loop from others."""
TokenId = Annotated[int, Field(ge=0, le=_INT32, json_schema_extra={"x-limit": "vocabulary"})]
ModelName = Annotated[str, Field(json_schema_extra={"x-limit": "model"})]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]


class Strict(BaseModel):
    """No field beyond those that are written down, no conversion of what has another type, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)


class StreamOptions(Strict):
    """What a stream carries beside its chunks."""

    include_usage: bool | None = Field(None, description="A last chunk without choices has the usage.")
    continuous_usage_stats: bool | None = Field(None, description="Every chunk has the usage so far.")
    include_obfuscation: Literal[False] | None = Field(None, description="Padding of chunks is not offered.")


class JsonSchema(Strict):
    """OpenAI's wrapping of a JSON schema."""

    name: Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Strict):
    """JSON that meets a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(Strict):
    """What the output must be: exactly one of these (vLLM's names)."""

    model_config = ConfigDict(
        json_schema_extra={"minProperties": 1, "maxProperties": 1}  # with what cannot be null below: exactly one
    )

    json_: dict[str, Any] | str = Field({}, alias="json", description="A JSON schema.")
    regex: str = Field("", description="A regular expression that the whole output matches.")
    choice: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1024)] = []
    grammar: str = Field("", description="EBNF (the form of llama.cpp) or Lark.")
    json_object: Literal[True] = True

    def to_params(self) -> StructuredOutputsParams:
        """For the engine. Raises RequestError."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if "json_" in given:
            given["json"] = given.pop("json_")
        return StructuredOutputsParams(**given)


class SamplingFields(Strict):
    """What both kinds of requests may ask of the sampler and of the answer."""

    model: ModelName | None = Field(None, description="Unset: the one that is served.")
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=1e4)] | None = Field(None, description="Default 1; 0 is greedy.")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=_INT32), WHOLE] | None = Field(None, description="0 and -1 keep all tokens.")
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
    ) = Field(None, description="Added to the logits of token ids.")
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1), WHOLE] | None = Field(
        None, description="The same request with the same seed gives the same tokens."
    )
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_TOKEN_IDS - 8), WHOLE_IDS] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Field(ge=0, le=_INT32), WHOLE] | None = Field(None, description="At most max_tokens.")
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: Literal[True] | None = Field(None, description="Texts are those of the tokens.")
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE] | None = None
    logprob_token_ids: Annotated[list[TokenId], Field(max_length=MAX_LOGPROB_TOKEN_IDS), WHOLE_IDS] | None = None
    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=MAX_IDS), WHOLE_IDS] | None = None
    bad_words: Annotated[list[Annotated[str, Field(pattern="\\S")]], Field(max_length=32)] | None = None
    structured_outputs: StructuredOutputs | None = None
    response_format: ResponseFormat | None = None
    truncate_prompt_tokens: (
        Annotated[int, Field(ge=-1, le=_INT32, json_schema_extra={"not": {"const": 0}}), WHOLE] | None
    ) = Field(None, description="Keep the last tokens of the prompt, this many; -1 as many as leave room.")
    priority: Annotated[int, Field(ge=-(2**31), le=_INT32), WHOLE] | None = Field(None, description="Lower goes first.")
    num_speculative_tokens: Annotated[int, Field(ge=0, le=_INT32), WHOLE] | None = Field(
        None, description="Most drafts a step for this request; 0 turns speculation off. The tokens are the same."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = Field(None, description="With stream only.")
    request_id: Annotated[str, Field(pattern="^[ -~]{1,128}$")] | None = Field(
        None, description="Part of the answer's id."
    )
    return_token_ids: bool | None = Field(None, description="Choices carry token_ids, the first prompt_token_ids.")
    return_token_origins: bool | None = Field(
        None, description='Choices carry origins: "draft" or "target" for each token.'
    )
    return_tokens_as_token_ids: bool | None = Field(None, description='Tokens of log-probabilities as "token_id:N".')
    user: str | None = Field(None, description="Taken, and not used.")

    def to_params(self, *, max_tokens: int | None, logprobs: int | None, echo: bool = False) -> SamplingParams:
        """For the engine. Raises RequestError, and APIError for fields that do not go together."""
        if self.stream_options is not None and not self.stream:
            raise refused("stream_options is for streams only. Set stream, or leave it out.", param="stream_options")
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
        """From structured_outputs or response_format."""
        asked = self.response_format
        if asked is None or isinstance(asked, TextFormat):
            return self.structured_outputs.to_params() if self.structured_outputs is not None else None
        if self.structured_outputs is not None:
            raise refused("response_format and structured_outputs are both given. Give one.", param="response_format")
        schema = {"type": "object"} if isinstance(asked, JsonObjectFormat) else asked.json_schema.schema_
        return compact_json(schema or {"type": "object"})


def compact_json(schema: dict[str, Any]) -> StructuredOutputsParams:
    """JSON without free whitespace, as OpenAI gives it: a model cannot go on with blanks for ever. A schema's own
    x-guidance (llguidance's options) is kept."""
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
"""Fields that mean to the engine what they say."""

NOT_OFFERED = {
    "best_of": "Ask for n and choose among the choices yourself.",
    "suffix": "Insertion is not built. Put the text into the prompt.",
    "use_beam_search": "Beam search is not built.",
    "length_penalty": "It is for beam search, which is not built.",
    "early_stopping": "It is for beam search, which is not built.",
    "cache_salt": "The prefix cache is shared; start the server with --no-enable-prefix-caching to have none.",
    "kv_transfer_params": "Prefill and decoding are not split over servers.",
    "vllm_xargs": "There are no custom arguments.",
    "repetition_detection": "Use repetition_penalty, or stop.",
    "thinking_token_budget": "Use max_tokens.",
    "mm_processor_kwargs": "Models here take text only.",
    "logits_processors": "Use logit_bias, bad_words or allowed_token_ids.",
    "guided_json": 'Use structured_outputs: {"json": …}.',
    "guided_regex": 'Use structured_outputs: {"regex": …}.',
    "guided_choice": 'Use structured_outputs: {"choice": …}.',
    "guided_grammar": 'Use structured_outputs: {"grammar": …}.',
    "guided_decoding_backend": "There is one, llguidance.",
    "structural_tag": "Use structured_outputs with a grammar.",
    "functions": "Use tools.",
    "function_call": "Use tool_choice.",
    "audio": "Models here take and give text only.",
    "modalities": "Models here take and give text only.",
    "prediction": "Speculation needs no help, and cannot change a token.",
    "reasoning_effort": "Use chat_template_kwargs, as the model's template names it.",
    "reasoning": "Use chat_template_kwargs, as the model's template names it.",
    "service_tier": "There is one.",
    "store": "Nothing is stored.",
    "metadata": "Nothing is stored.",
    "verbosity": "Say it in a message.",
    "web_search_options": "Nothing is searched.",
    "safety_identifier": "Nothing is checked.",
    "prompt_cache_key": "The prefix cache finds equal prefixes itself.",
}
"""Fields that callers of OpenAI or vLLM know and this server does not have: what to do instead."""
