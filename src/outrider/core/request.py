"""A request: prompt, parameters and limits, checked at admission and not changed afterwards.

It crosses the socket to the engine process. The scheduler keeps its progress (`scheduler/request_state.py`).
"""

from dataclasses import dataclass

from outrider.core.content import ContentKey
from outrider.core.pooling import PoolingParams
from outrider.core.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """One completion that a caller asks for."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    seed: int
    """params.seed, or the one drawn at admission."""
    eos_token_ids: tuple[int, ...]
    """Empty with ignore_eos."""
    max_total_tokens: int
    """Prompt and output never exceed this: min(prompt + max_tokens, max_model_len)."""
    prompt: str | None = None
    completion_index: int = 0
    """Index among the n completions of its prompt; a part of the noise's key."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """params.bad_words as token ids."""
    pooling: PoolingParams | None = None
    """Parameters of a pooling request, which has no output tokens; `params` then says its priority only. None: the
    request generates."""
    reads_prefix_cache: bool = True
    """False for a pooling request that needs more hidden states than the last: cached tokens have none."""
    token_type_ids: tuple[int, ...] = ()
    """For a pooling request: the part of the prompt, 0 or 1, that each token belongs to; empty where all are 0."""
    text_start: int = 0
    """For a pooling request: place of the first token that belongs to the vector; an instruction is before it."""
    grammar: str | None = None
    """The grammar of structured_outputs in llguidance's format, if admission read it and the engine compiles it."""
    call_id: str = ""
    """The call that it is a part of: no call's work holds up the rows of another one for long. Callers of one engine
    who do not wait for each other give different ones."""
    content_keys: tuple[ContentKey, ...] = ()
    """Content beside the token ids, and salts: the request shares cached prefixes with requests of the same ones."""

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Ids that end the output, eos included."""
        return (*self.eos_token_ids, *(self.params.stop_token_ids or ()))
