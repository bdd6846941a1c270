"""Messages between the engine process and its client: plain data."""

from dataclasses import dataclass, field

from outrider.core.config import EngineConfig
from outrider.core.outputs import OutputDelta
from outrider.core.request import Request
from outrider.core.sampling_defaults import SamplingDefaults
from outrider.engine.stats import EngineStats


@dataclass(frozen=True, slots=True)
class Begin:
    """To the engine: the first message."""

    config: EngineConfig
    log_level: str
    """One of `outrider.core.log.LEVELS`."""


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


@dataclass(frozen=True, slots=True)
class Failed:
    """From the engine, instead of `EngineInfo`: it could not be built."""

    message: str
    is_users_fault: bool
    """True if the message names a value and a remedy."""


@dataclass(frozen=True, slots=True)
class Add:
    """To the engine: a checked request. It answers with `Added` or `Refused`."""

    request: Request


@dataclass(frozen=True, slots=True)
class Abort:
    """To the engine: abort a request whose caller has left."""

    request_id: str


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

    answers: list[Added | Refused]
    deltas: list[OutputDelta]
    stats: EngineStats | None
    """A snapshot of its counters, or None if none is due."""
