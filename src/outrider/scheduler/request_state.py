"""The progress of one request, from `Scheduler.add` to its last token. Only the scheduler changes it.

Holds tokens, counts, block ids and results. The device has its own row for the request (`device/table.py`), the only
place that knows the accepted counts, lengths and drafts of steps in flight; `settle` copies them to this object.

    tokens:  | prompt ........ | confirmed output ... | in flight ... |
             0                 num_prompt_tokens      num_tokens      bound
"""

from array import array
from dataclasses import dataclass, field
from enum import Enum

from outrider.core.outputs import FinishReason, Logprob, SpeculationStats
from outrider.core.plan import TokenLogprobs
from outrider.core.pooling import PoolingParams
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams


class RequestStatus(Enum):
    """Stage of a request: queued, served, or ended."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True)
class BlockList:
    """A request's blocks in one group of layers."""

    ids: list[int]
    """Block ids from the first token on; the null block in place of those that were released."""
    num_released: int = 0
    """Leading blocks that no later token reads and that the request no longer holds."""


@dataclass(slots=True, kw_only=True, eq=False)
class RequestState:
    """Everything about a request that changes while it is served."""

    request: Request
    arrival: int = 0
    """Order of arrival."""
    status: RequestStatus = RequestStatus.WAITING
    token_ids: list[int] = field(init=False)
    """Prompt and confirmed output."""

    num_computed_tokens: int = 0
    """Tokens whose KV is written and confirmed."""
    num_scheduled_tokens: int = 0
    """Known tokens whose KV is written once the steps in flight end (grows chunk by chunk in a prompt)."""
    num_steps_in_flight: int = 0
    """Sampling steps launched and not yet settled; each emits at least one token."""
    num_tokens_in_flight: int = 0
    """The most tokens those steps may emit."""
    last_step: int = -1
    """The last step this request was planned into."""
    row: int = -1
    """Row of the device table; -1 while waiting."""
    epoch: int = 0
    """Changes at each queueing, preemption, finish and abort, never reused; results of other epochs are dropped."""
    blocks: list[BlockList] = field(default_factory=list)
    """Blocks held in each group of layers; empty while waiting."""
    num_reserved_tokens: int = 0
    """Tokens that the blocks of every group have room for."""
    block_hashes: list[bytes] = field(default_factory=list)
    """Chain hashes of the leading full blocks of token_ids, as far as computed."""
    num_published_tokens: int = 0
    """Leading tokens whose full blocks this request published or took from the prefix cache."""

    num_proposals: int = 0
    """Number of drafts that the last step in which it sampled makes for its next step."""
    acceptance: list[float] = field(default_factory=list)
    """With adaptive drafting, for each draft i: the request's share of steps that accept drafts 0 … i, minus that of
    all requests. Empty before its first drafts."""
    drafts: tuple[int, ...] = ()
    """Drafts for the next step, read back for requests with a grammar only."""

    finish_reason: FinishReason | None = None
    error: str | None = None
    """Reason why the request cannot continue, with FinishReason.ERROR."""
    stop_reason: int | str | None = None
    """The stop token id or stop string that ended the request; None for eos, length and abort."""
    num_cached_tokens: int = -1
    """Prompt tokens taken from the prefix cache at the first admission; -1 before it."""
    num_preemptions: int = 0
    speculation: SpeculationStats = field(default_factory=SpeculationStats)
    is_draft: list[bool] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    """Log-probabilities from the second prompt token on."""
    logits_digest: int = 0
    pooled: "array[float]" = field(default_factory=lambda: array("f"))
    """Numbers of a pooling request so far."""

    # copies of the fields of `request` that the loops over rows read: reading them there would cost several percent
    request_id: str = field(init=False)
    params: SamplingParams = field(init=False)
    max_total_tokens: int = field(init=False)
    num_prompt_tokens: int = field(init=False)
    has_grammar: bool = field(init=False)
    pooling: PoolingParams | None = field(init=False)

    def __post_init__(self) -> None:
        request = self.request
        self.token_ids = list(request.prompt_token_ids)
        self.request_id = request.request_id
        self.params = request.params
        self.max_total_tokens = request.max_total_tokens
        self.num_prompt_tokens = len(request.prompt_token_ids)
        self.has_grammar = request.params.structured_outputs is not None
        self.pooling = request.pooling

    @property
    def block_ids(self) -> list[int]:
        """Blocks of the first group."""
        return self.blocks[0].ids if self.blocks else []

    @property
    def num_tokens(self) -> int:
        """Prompt and confirmed output."""
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def output_token_ids(self) -> list[int]:
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def num_unscored_tokens(self) -> int:
        """Prompt tokens whose log-probabilities are asked for and not yet known; the first token has none."""
        if self.params.prompt_logprobs is None:
            return 0
        return self.num_prompt_tokens - 1 - len(self.prompt_logprobs)

    @property
    def reads_prefix_cache(self) -> bool:
        """True if leading tokens may come from the prefix cache: no result is asked for at one of them."""
        if self.pooling is not None:
            return self.request.reads_prefix_cache
        return self.num_unscored_tokens <= 0

    @property
    def is_prefilling(self) -> bool:
        """True while known tokens remain that no launched step covers."""
        return self.num_scheduled_tokens < len(self.token_ids)
