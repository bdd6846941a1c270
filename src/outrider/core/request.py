"""A request as the host knows it, from admission to its last token.

Holds counts, tokens and block ids. The device has its own row for it (`device/table.py`), which is the only
place where accepted counts, lengths and drafts of steps in flight stand; this object learns of them in settle.

    tokens:  | prompt ........ | confirmed output ... | in flight ... |
             0                 num_prompt_tokens      num_tokens      bound
"""

from dataclasses import dataclass, field
from enum import Enum

from outrider.core.outputs import FinishReason, Logprob, SpeculationStats
from outrider.core.sampling_params import SamplingParams


class RequestStatus(Enum):
    """Where a request stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """One request; changed by the scheduler only."""

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    seed: int
    """params.seed, or the one drawn at admission."""
    eos_token_ids: tuple[int, ...]
    """Empty with ignore_eos."""
    max_total_tokens: int
    """Prompt and output never exceed this: min(prompt + max_tokens, max_model_len)."""
    prompt: str | None = None
    completion_index: int = 0
    """Index among the n completions of its prompt."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """params.bad_words as token ids."""
    arrival: int = 0
    """Order of arrival, given by the scheduler when it is queued."""

    status: RequestStatus = RequestStatus.WAITING
    token_ids: list[int] = field(default_factory=list)
    """Prompt and confirmed output."""
    num_computed_tokens: int = 0
    """Tokens whose KV is written and confirmed."""
    num_scheduled_tokens: int = 0
    """Known tokens whose KV is written once the steps in flight end (grows chunk by chunk in a prompt)."""
    num_steps_in_flight: int = 0
    """Sampling steps launched and not settled: each will emit at least one token."""
    num_tokens_in_flight: int = 0
    """The most tokens those steps may emit."""
    last_step: int = -1
    """The last step this request was planned into."""
    row: int = -1
    """Row of the device table; -1 while waiting."""
    epoch: int = 0
    """New at each queueing, preemption, finish and abort, never given twice; other epochs' results are dropped."""
    block_ids: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)
    """Chain hashes of the leading full blocks of token_ids, as far as they were needed."""
    num_shared_tokens: int = 0
    """Of a hybrid: leading tokens whose blocks were found at admission, with a snapshot at their end or not."""
    state_reach: int = 0
    """Of a hybrid: how far launched steps may have moved its state."""
    state_saved: int = 0
    """Of a hybrid: where decoding took its last snapshot, 0 if it took none."""
    num_cached_blocks: int = 0
    """Leading blocks that this request published or took from the prefix cache."""

    num_proposals: int = 0
    """Drafts that the last step it sampled in was asked to make for its next one."""
    acceptance: list[float] = field(default_factory=list)
    """Of adaptive drafting: what its share of steps that accept draft i and all before it differs by from that of all
    requests. Empty before its first drafts."""
    drafts: tuple[int, ...] = ()
    """Of a request with a grammar: what the drafter proposed for the next step."""

    finish_reason: FinishReason | None = None
    error: str | None = None
    """Why it could not go on, with FinishReason.ERROR."""
    stop_reason: int | str | None = None
    num_cached_tokens: int = -1
    num_preemptions: int = 0
    speculation: SpeculationStats = field(default_factory=SpeculationStats)
    is_draft: list[bool] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    prompt_logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    """From the second prompt token on."""
    logits_digest: int = 0

    def __post_init__(self) -> None:
        if not self.token_ids:
            self.token_ids = list(self.prompt_token_ids)

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt_token_ids)

    @property
    def num_tokens(self) -> int:
        """Prompt and confirmed output."""
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - len(self.prompt_token_ids)

    @property
    def output_token_ids(self) -> list[int]:
        return self.token_ids[len(self.prompt_token_ids) :]

    @property
    def has_grammar(self) -> bool:
        return self.params.structured_outputs is not None

    @property
    def num_unscored_tokens(self) -> int:
        """Prompt tokens whose log-probabilities are asked for and not known; the first has none."""
        if self.params.prompt_logprobs is None:
            return 0
        return self.num_prompt_tokens - 1 - len(self.prompt_logprobs)

    @property
    def is_prefilling(self) -> bool:
        """True while known tokens remain that no launched step covers."""
        return self.num_scheduled_tokens < self.num_tokens
