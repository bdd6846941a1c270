"""Fields of OpenAI or vLLM that this server does not offer, and what to do instead. Values without effect are taken."""

from typing import Annotated, Literal

from pydantic import Field

from outrider.server.strict import OnlyFalse, Strict

NOT_OFFERED = {
    "best_of": "Use n and choose among the choices yourself.",
    "suffix": "Insertion is not supported. Put the text into the prompt.",
    "use_beam_search": "Beam search is not supported.",
    "length_penalty": "It belongs to beam search, which is not supported.",
    "early_stopping": "It belongs to beam search, which is not supported.",
    "kv_transfer_params": "Prefill and decoding cannot run on different servers.",
    "vllm_xargs": "Custom arguments are not supported.",
    "repetition_detection": "Use repetition_penalty, or stop.",
    "thinking_token_budget": "Use max_tokens.",
    "mm_processor_kwargs": "Only text is supported.",
    "prompt_embeds": "A prompt is text or token ids.",
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
    "reasoning": "Use reasoning_effort, or chat_template_kwargs with the name that the chat template has for it.",
    "thinking": "Use chat_template_kwargs with the name that the model's chat template has for it.",
    "service_tier": 'There is only one tier, "default".',
    "store": "Only responses of /v1/responses are stored.",
    "metadata": "Only responses of /v1/responses are stored. Leave the field out.",
    "verbosity": "Ask for it in a message.",
    "extra_body": "It is an argument of the openai client. Put its fields beside the others.",
    "web_search_options": "Web search is not supported. Offer a tool for it.",
    "prompt_cache_retention": "Blocks stay in the prefix cache, in memory, while there is room.",
    "truncation_side": "truncate_prompt_tokens keeps the end of the prompt.",
}

NOT_IN_MESSAGES = {
    "audio": "Only text is supported.",
    "refusal": "Put its text into content.",
    "function_call": "Use tool_calls.",
    "prefix": "Use continue_final_message.",
    "partial": "Use continue_final_message.",
}
"""Fields of messages."""

_One = Annotated[float, Field(ge=1.0, le=1.0)]


class NeutralFields(Strict):
    """Fields that are not offered, with the values that ask for nothing; none of them changes an answer."""

    user: str | None = Field(None, description="Accepted and ignored.")
    safety_identifier: str | None = Field(None, description="Accepted and ignored.")
    prompt_cache_key: str | None = Field(
        None, description="Accepted and ignored: the prefix cache finds equal prefixes by itself."
    )
    prompt_cache_retention: Literal["in_memory", "in-memory"] | None = None
    store: OnlyFalse | None = Field(None, description="Must be false: nothing is stored.")
    service_tier: Literal["auto", "default"] | None = None
    best_of: Literal[1] | None = None
    use_beam_search: OnlyFalse | None = None
    length_penalty: _One | None = None
    early_stopping: OnlyFalse | None = None
    truncation_side: Literal["left"] | None = None


class NeutralChatFields(NeutralFields):
    """Those of chat completions."""

    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    function_call: Literal["none", "auto"] | None = Field(None, description="Has no effect: functions are not offered.")
    verbosity: Literal["medium"] | None = None
    web_search_options: None = Field(None, description="Must be null: an empty object would ask for a search.")
