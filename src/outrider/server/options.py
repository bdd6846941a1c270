"""Options of the server, checked on construction. Those of the engine are in `core/config.py`."""

from dataclasses import dataclass, field

from outrider.core import log
from outrider.core.errors import ConfigError
from outrider.engine.content_form import FORMATS
from outrider.server.tools import find_parser, find_reasoning_parser


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Address, access and limits of the server."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 listens on all interfaces."""
    port: int = 8000
    """Port to listen on; 0 chooses a free one."""
    served_model_names: tuple[str, ...] = ()
    """Names that requests may use for the model; empty uses the model directory as it was given."""
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Keys, one of which every caller must send; empty serves everybody."""
    guards_all_paths: bool = False
    """True asks for a key at every path but /health: /metrics, /openapi.json and the page at / as well."""
    allowed_origins: tuple[str, ...] = ()
    """Origins whose web pages may call the server (CORS); "*" allows all."""
    allowed_hosts: tuple[str, ...] = ()
    """Names, beside this machine's own, by which the server may be called (the Host header); "*" allows all. Empty: any
    name, except where a server without keys listens on this machine alone."""
    max_body_bytes: int = 4 << 20
    """Maximum size of a request body in bytes."""
    max_queued_requests: int = 256
    """Maximum number of waiting completions, beyond the max_num_seqs that run; more are refused with 429."""
    scheduling_policy: str = "fcfs"
    """"fcfs": first come, first served, and a request with a priority is refused; "priority": callers may set it."""
    limit_concurrency: int | None = None
    """Maximum number of open connections; None: as many as the limit on open files allows."""
    max_header_bytes: int = 1 << 16
    """Maximum size of a request's headers in bytes."""
    max_header_count: int = 256
    """Maximum number of a request's headers."""
    timeout_header: float = 10.0
    """Seconds in which the headers of a request must arrive."""
    timeout_body: float = 60.0
    """Seconds in which the body of a request must arrive."""
    timeout_keep_alive: int = 75
    """Seconds that an idle connection stays open: longer than clients keep theirs (httpx 5 s, aiohttp 15 s), so that
    the client closes it, and no request arrives on a connection that the server is closing."""
    drain_seconds: float = 30.0
    """Seconds that running requests have to finish after SIGTERM."""
    max_engine_restarts: int = 0
    """Number of times that the engine process is restarted after it exits by itself."""
    chat_template: str | None = None
    """Jinja source of a template that replaces the model's own."""
    chat_template_content_format: str = "auto"
    """Form of the contents that the template gets: one of `outrider.engine.content_form.FORMATS`."""
    trusts_request_chat_template: bool = False
    """True accepts chat templates from requests. They run in a sandbox, for a limited time."""
    tool_call_parser: str | None = None
    """File name of a parser in `outrider/server/tool_parsers`; None refuses tool_choice "auto"."""
    reasoning_parser: str | None = None
    """File name of a parser in `outrider/server/reasoning_parsers`; None leaves reasoning in the content."""
    log_level: str = "info"
    """One of `outrider.core.log.LEVELS`, for the server and its engine process."""
    logs_requests: bool = False
    """True logs each request in one line, without its text."""
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile_password: str | None = field(default=None, repr=False)
    ssl_ca_certs: str | None = None
    """TLS files and password, passed to uvicorn."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port={self.port} is not a port number. Use 0 to 65535.")
        if self.max_body_bytes < 1024:
            raise ConfigError(f"max_body_bytes={self.max_body_bytes} is too small for any request. Use 1024 or more.")
        if self.max_queued_requests < 0:
            raise ConfigError(
                f"max_queued_requests={self.max_queued_requests} is negative. Use 0 or more; 0 lets no completion wait."
            )
        if self.scheduling_policy not in ("fcfs", "priority"):
            raise ConfigError(
                f"scheduling_policy={self.scheduling_policy!r} is not known. Use 'fcfs', or 'priority' to let callers "
                "set the priority of their requests."
            )
        for name, low in (
            ("limit_concurrency", 1),
            ("max_header_bytes", 1024),
            ("max_header_count", 8),
            ("timeout_header", 0.1),
            ("timeout_body", 0.1),
            ("timeout_keep_alive", 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= 1 << 30:
                raise ConfigError(f"{name}={value} is out of range. Use {low} or more.")
        if not 0.0 <= self.drain_seconds <= 86400.0:
            raise ConfigError(f"drain_seconds={self.drain_seconds} is out of range. Use 0 to 86400.")
        if self.max_engine_restarts < 0:
            raise ConfigError(
                f"max_engine_restarts={self.max_engine_restarts} is negative. Use 0 or more; 0 never restarts it."
            )
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ConfigError("ssl_keyfile is given without ssl_certfile. TLS needs both.")
        if self.chat_template_content_format not in FORMATS:
            raise ConfigError(
                f"chat_template_content_format={self.chat_template_content_format!r} is not known. Use "
                f"{', '.join(FORMATS)}."
            )
        if self.tool_call_parser is not None:
            find_parser(self.tool_call_parser)
        if self.reasoning_parser is not None:
            find_reasoning_parser(self.reasoning_parser)
        if log.resolve_level(self.log_level) not in ("debug", "info") and self.logs_requests:
            raise ConfigError(
                f"log_requests has no effect with log_level={self.log_level!r}, because requests are logged at 'info'. "
                "Use log_level 'info' or 'debug', or leave log_requests out."
            )
        if any(not key for key in self.api_keys):
            raise ConfigError("api_key='' is empty. Give a key, or leave the option out.")
        if self.guards_all_paths and not self.api_keys:
            raise ConfigError("api_key_for_all_paths has no effect without keys. Give --api-key-file, or leave it out.")
