"""Types of all responses: the published schema. Tests check every response against them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Base of all responses: no field beyond the declared ones."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Answer):
    """The error: its message, its kind, and the field it is about."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Answer):
    """An error in OpenAI's form."""

    error: ErrorDetail


class PromptDetails(Answer):
    """Token counts of the prompt."""

    cached_tokens: int


class CompletionDetails(Answer):
    """Counts of accepted and rejected draft tokens."""

    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class Speculation(Answer):
    """Counts of speculative decoding; zeros without a drafter."""

    num_steps: int
    num_drafts: int
    num_draft_tokens: int
    num_accepted_tokens: int
    num_accepted_tokens_per_pos: list[int]
    mean_acceptance_length: float


class UsageAnswer(Answer):
    """Token counts of the call."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    speculation: Speculation


class PromptLogprob(Answer):
    """Log-probability and rank of a token at its position in the prompt."""

    logprob: float
    rank: int
    decoded_token: str | None
    bytes: list[int]


PromptLogprobs = list[dict[str, PromptLogprob] | None]
Origin = Literal["draft", "target"]


class Choice(Answer):
    """Fields of every choice; the ones with defaults are present if the request asked for them."""

    index: int
    stop_reason: str | int | None
    token_ids: list[int] = Field(default_factory=list)
    origins: list[Origin] = Field(default_factory=list)
    token_texts: list[str] = Field(default_factory=list)
    logits_digest: str = ""


class CompletionLogprobs(Answer):
    """Log-probabilities of a completion: four lists with one entry per token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Choice):
    """One completion of a prompt."""

    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: CompletionLogprobs | None
    prompt_logprobs: PromptLogprobs = Field(default_factory=list)
    prompt_token_ids: list[int] = Field(default_factory=list)


class CompletionAnswer(Answer):
    """Response of /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageAnswer


class TokenLogprob(Answer):
    """Log-probability of a token."""

    token: str
    logprob: float
    bytes: list[int]


class PlaceLogprobs(TokenLogprob):
    """Log-probability of the token at a position, and of the most likely tokens there."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Answer):
    """Log-probabilities of a chat answer: one entry per token."""

    content: list[PlaceLogprobs]
    refusal: None


class FunctionCall(Answer):
    """Name of the function, and its arguments as a JSON string."""

    name: str
    arguments: str


class CallAnswer(Answer):
    """A tool call that the model made."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class ChatMessage(Answer):
    """The message that the model wrote."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallAnswer] = Field(default_factory=list)


class ChatChoice(Choice):
    """One answer to the conversation."""

    message: ChatMessage
    finish_reason: Literal["stop", "length", "tool_calls"]
    logprobs: ChatLogprobs | None


class ChatAnswer(Answer):
    """Response of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageAnswer
    prompt_logprobs: PromptLogprobs = Field(default_factory=list)
    prompt_token_ids: list[int] = Field(default_factory=list)


class SpeculativeAnswer(Answer):
    """The drafter of a served model."""

    method: str
    num_speculative_tokens: int


class ModelAnswer(Answer):
    """Response of /v1/models/{model}: a served model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    max_model_len: int
    tasks: list[str]
    speculative_config: SpeculativeAnswer | None


class ModelsAnswer(Answer):
    """Response of /v1/models."""

    object: Literal["list"]
    data: list[ModelAnswer]


class TokenizeAnswer(Answer):
    """Response of /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] = Field(default_factory=list)


class DetokenizeAnswer(Answer):
    """Response of /detokenize."""

    prompt: str


class HealthAnswer(Answer):
    """Response of /health."""

    status: Literal["ok", "draining", "engine_dead"]


class VersionAnswer(Answer):
    """Response of /version."""

    version: str
