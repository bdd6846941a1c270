"""What the endpoints answer, as types: the published schema. Tests hold every answer against them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Nothing beside what is written down."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Answer):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Answer):
    """OpenAI's form of an error."""

    error: ErrorDetail


class PromptDetails(Answer):
    """Of prompt_tokens."""

    cached_tokens: int


class CompletionDetails(Answer):
    """Of drafts: accepted ones, and those that were not."""

    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class Speculation(Answer):
    """What the drafter did; zeros where there is none."""

    num_steps: int
    num_drafts: int
    num_draft_tokens: int
    num_accepted_tokens: int
    num_accepted_tokens_per_pos: list[int]
    mean_acceptance_length: float


class UsageAnswer(Answer):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    speculation: Speculation


class PromptLogprob(Answer):
    """Of a token at its place in the prompt."""

    logprob: float
    rank: int
    decoded_token: str | None


PromptLogprobs = list[dict[str, PromptLogprob] | None]
Origin = Literal["draft", "target"]


class Choice(Answer):
    """What all choices may carry, where it was asked for."""

    index: int
    stop_reason: str | int | None
    token_ids: list[int] = Field(default_factory=list)
    origins: list[Origin] = Field(default_factory=list)
    token_texts: list[str] = Field(default_factory=list)
    logits_digest: str = ""


class CompletionLogprobs(Answer):
    """Four lists, one entry for each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Choice):
    """One text."""

    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: CompletionLogprobs | None
    prompt_logprobs: PromptLogprobs = Field(default_factory=list)
    prompt_token_ids: list[int] = Field(default_factory=list)


class CompletionAnswer(Answer):
    """Of /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageAnswer


class TokenLogprob(Answer):
    """Of one token."""

    token: str
    logprob: float
    bytes: list[int]


class PlaceLogprobs(TokenLogprob):
    """Of the token at a place, with the most likely ones."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Answer):
    """One entry for each token."""

    content: list[PlaceLogprobs]
    refusal: None


class FunctionCall(Answer):
    """A function and its arguments, JSON as text."""

    name: str
    arguments: str


class CallAnswer(Answer):
    """A tool call."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class ChatMessage(Answer):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[CallAnswer] = Field(default_factory=list)


class ChatChoice(Choice):
    """One answer."""

    message: ChatMessage
    finish_reason: Literal["stop", "length", "tool_calls"]
    logprobs: ChatLogprobs | None


class ChatAnswer(Answer):
    """Of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageAnswer
    prompt_logprobs: PromptLogprobs = Field(default_factory=list)
    prompt_token_ids: list[int] = Field(default_factory=list)


class SpeculativeAnswer(Answer):
    """How a model drafts."""

    method: str
    num_speculative_tokens: int


class ModelAnswer(Answer):
    """A served model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    max_model_len: int
    speculative_config: SpeculativeAnswer | None


class ModelsAnswer(Answer):
    """Of /v1/models."""

    object: Literal["list"]
    data: list[ModelAnswer]


class TokenizeAnswer(Answer):
    """Of /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] = Field(default_factory=list)


class DetokenizeAnswer(Answer):
    """Of /detokenize."""

    prompt: str


class HealthAnswer(Answer):
    """Of /health."""

    status: Literal["ok", "draining", "engine is gone"]


class VersionAnswer(Answer):
    """Of /version."""

    version: str
