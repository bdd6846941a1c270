"""The server's own options, checked where they are made; the engine's are in `core/config.py`."""

from dataclasses import dataclass

from outrider.core.errors import ConfigError
from outrider.server.tools import find_parser


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How the server listens, whom it lets in, and how much it takes."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every one of this machine."""
    port: int = 8000
    """0 takes a free one."""
    served_model_names: tuple[str, ...] = ()
    """Names that requests may ask for; none: the model's directory as it was given."""
    api_keys: tuple[str, ...] = ()
    """Callers must show one of these; none: everybody is let in."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages of these origins may call (CORS); "*" is all."""
    max_body_bytes: int = 4 << 20
    """Longest body of a request."""
    max_queued_requests: int = 256
    """Completions that may wait beyond those that run (max_num_seqs); more are refused with 429."""
    drain_seconds: float = 30.0
    """After SIGTERM, how long running requests may take to end."""
    max_engine_restarts: int = 0
    """How often an engine that died is started again."""
    chat_template: str | None = None
    """A Jinja template in place of the model's own."""
    trusts_request_chat_template: bool = False
    """Requests may bring templates. They run in a sandbox, but can take as long as they like."""
    tool_call_parser: str | None = None
    """File name of a parser in `outrider/server/tool_parsers`; without one, models do not choose tools themselves."""
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile_password: str | None = None
    ssl_ca_certs: str | None = None
    """TLS: files as uvicorn takes them."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port={self.port} is no port. Use 0 to 65535.")
        if self.max_body_bytes < 1024:
            raise ConfigError(f"max_body_bytes={self.max_body_bytes} is too little for any request. Use 1024 or more.")
        if self.max_queued_requests < 0:
            raise ConfigError(f"max_queued_requests={self.max_queued_requests} is negative. 0 lets none wait.")
        if not 0.0 <= self.drain_seconds <= 86400.0:
            raise ConfigError(f"drain_seconds={self.drain_seconds} is out of range: 0 to 86400.")
        if self.max_engine_restarts < 0:
            raise ConfigError(f"max_engine_restarts={self.max_engine_restarts} is negative. 0 never starts it again.")
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ConfigError("ssl_keyfile is given without ssl_certfile. TLS needs both.")
        if self.tool_call_parser is not None:
            find_parser(self.tool_call_parser)
        if any(not key for key in self.api_keys):
            raise ConfigError("an api_key is empty. Give a key, or none at all.")
