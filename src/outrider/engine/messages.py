"""Messages between the engine process and its client: plain data."""

from dataclasses import dataclass, field
from logging import LogRecord

from outrider.core.config import EngineConfig
from outrider.core.draft_cost import DraftCost
from outrider.core.errors import OutriderError
from outrider.core.outputs import OutputDelta
from outrider.core.pooling import PoolingAbilities, PoolingRequestOutput
from outrider.core.request import Request
from outrider.core.sampling_defaults import SamplingDefaults
from outrider.engine.stats import EngineStats
from outrider.platforms.torch_settings import TorchSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """To the engine: the first message."""

    config: EngineConfig
    log_level: str | int
    """One of `outrider.core.log.LEVELS`: the process writes its log to stderr. A number: it sends records of this level
    and above to the client (`Logged`)."""
    torch_settings: TorchSettings
    skip_tokenizer_init: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """From the engine, once it is ready: the choices it made, and the limits that admission checks."""

    process_id: int
    description: list[tuple[str, str]]
    """(name, value) lines for a person."""
    vocab_size: int
    max_model_len: int
    max_num_seqs: int
    eos_token_ids: tuple[int, ...]
    num_blocks: int
    """KV blocks that requests can use."""
    is_exact: bool
    sampling_defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
    """Parameters of requests that say nothing."""
    draft_cost: DraftCost | None = None
    """None if it was not measured."""
    pooling: PoolingAbilities | None = None
    """Abilities of a pooling engine; None: the engine generates."""


@dataclass(frozen=True, slots=True)
class Failed:
    """From the engine, instead of `EngineInfo`: it could not be built."""

    message: str
    error: OutriderError | None
    """The error that was raised, if its message names a value and a remedy."""


@dataclass(frozen=True, slots=True)
class Add:
    """To the engine: a checked request. It answers with `Added` or `Refused`."""

    request: Request


@dataclass(frozen=True, slots=True)
class Abort:
    """To the engine: abort a request whose caller has left."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Count:
    """To the engine: take a snapshot of the counters now. It answers with `Counted`."""

    number: int


@dataclass(frozen=True, slots=True)
class Counted:
    """From the engine: the answer to a `Count` of the same number."""

    number: int
    stats: EngineStats


@dataclass(frozen=True, slots=True)
class Logged:
    """From the engine: records of its log, without arguments and tracebacks of their own."""

    records: list[LogRecord]


@dataclass(frozen=True, slots=True)
class Stopped:
    """From the engine: its loop ended because of an error; the process exits."""

    reason: str


@dataclass(frozen=True, slots=True)
class Added:
    """From the engine: the request is queued."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """From the engine: the request cannot be served. The message names the value and the remedy."""

    request_id: str
    message: str


@dataclass(frozen=True, slots=True)
class Turn:
    """From the engine, after a turn of its loop: the changes."""

    answers: list[Added | Refused | Counted]
    deltas: list[OutputDelta]
    stats: EngineStats | None
    """A snapshot of its counters, or None if none is due."""
    pooled: list[PoolingRequestOutput] = field(default_factory=list)
    """Pooling requests that have ended."""
