"""Runs the server until a signal stops it: starts the engine, then HTTP, and drains at the end.

Prints for a person what was chosen and why; everything later goes to the log.
"""

import asyncio
import gc
import socket
import ssl
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType

import uvicorn
from rich.console import Console

from outrider.core import log
from outrider.core.config import EngineConfig
from outrider.core.errors import ConfigError, EngineDeadError
from outrider.loading.model_source import with_local_files
from outrider.progress import working
from outrider.server import descriptors, heap
from outrider.server.activity import report
from outrider.server.app import build_app
from outrider.server.connection import Connection, ConnectionLimits
from outrider.server.front import Front
from outrider.server.options import ServerOptions

_GRACE_SECONDS = 2
"""Time that connections have to close once their requests have ended."""
_STALLED_SECONDS = 120
"""Time that a client may leave sent bytes unread before it is disconnected."""


_SWITCH_SECONDS = 0.001
"""Time that a thread keeps Python's lock while another waits for it: Python's own 5 ms would hold up every event."""


class _Server(uvicorn.Server):
    """Drains on the first signal and exits at once on the second."""

    def __init__(self, config: uvicorn.Config, front: Front, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._front = front
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen, then calls `on_ready`."""
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handles a signal: drains, or exits if it is draining already. Called by uvicorn."""
        if self._draining is None and not self.should_exit:
            self._loop.call_soon_threadsafe(self._begin_to_drain)
        else:
            self.should_exit = True

    def _begin_to_drain(self) -> None:
        if self._draining is None:
            self._draining = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        await self._front.drain()
        await self._front.client.stop(EngineDeadError("the server is shutting down and --drain-seconds have passed"))
        self.should_exit = True


def serve(config: EngineConfig, options: ServerOptions, console: Console) -> None:
    """Runs the server and returns when it has stopped. Raises OutriderError if it cannot start."""
    log.configure(log.resolve_level(options.log_level), others=("uvicorn",))
    sys.setswitchinterval(_SWITCH_SECONDS)
    heap.return_large_buffers()
    asyncio.run(_serve(config, options, console))


async def _serve(config: EngineConfig, options: ServerOptions, console: Console) -> None:
    begin = time.monotonic()
    num_descriptors = descriptors.raise_limit()
    asyncio.get_running_loop().set_exception_handler(descriptors.LoopErrors())
    limits = ConnectionLimits(
        max_connections=descriptors.max_connections(num_descriptors, asked=options.limit_concurrency),
        max_header_bytes=options.max_header_bytes,
        max_header_count=options.max_header_count,
        max_body_bytes=options.max_body_bytes,
        timeout_header=options.timeout_header,
        timeout_body=options.timeout_body,
    )
    _check_tls(options)  # first, as the address, because a model takes long to load
    listener = _bound(options)
    try:
        front = Front(await asyncio.to_thread(with_local_files, config), options)
    except BaseException:
        listener.close()
        raise
    try:
        with working(f"Loading {front.model_names[0]}"):
            await front.start()

        def say_ready() -> None:
            for line in start_up_lines(front, time.monotonic() - begin):
                console.print(line, markup=False, soft_wrap=True)
            scheme = "https" if options.ssl_certfile else "http"
            console.print(f"Ready on {scheme}://{options.host}:{listener.getsockname()[1]}", style="bold")

        server = _Server(
            uvicorn.Config(
                build_app(front),
                http=partial(Connection, limits=limits),  # type: ignore[arg-type]
                backlog=descriptors.backlog(num_descriptors),
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                ws="none",
                lifespan="off",
                timeout_keep_alive=options.timeout_keep_alive,
                timeout_graceful_shutdown=_GRACE_SECONDS,
                ssl_keyfile=options.ssl_keyfile,
                ssl_certfile=options.ssl_certfile,
                ssl_keyfile_password=options.ssl_keyfile_password,
                ssl_ca_certs=options.ssl_ca_certs,
            ),
            front,
            say_ready,
        )
        gc.collect()
        gc.freeze()  # what was made until now stays: a collection that went through it would hold up every stream
        reporting = asyncio.create_task(
            report(front.activity, lambda: front.metrics.stats, draft_cost=lambda: front.info.draft_cost)
        )
        try:
            await server.serve(sockets=[listener])
        finally:
            reporting.cancel()
    finally:
        listener.close()
        await front.stop()


def _check_tls(options: ServerOptions) -> None:
    """Raises ConfigError if the TLS files cannot be read, or do not belong together."""
    if options.ssl_certfile is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile, options.ssl_keyfile_password or "")
        if options.ssl_ca_certs is not None:
            context.load_verify_locations(options.ssl_ca_certs)
    except OSError as error:
        given = {name: getattr(options, name) for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs")}
        files = ", ".join(f"{name}={path!r}" for name, path in given.items() if path is not None)
        raise ConfigError(f"TLS cannot use {files}: {error}. Give PEM files that belong together.") from error


def _bound(options: ServerOptions) -> socket.socket:
    """A socket bound to its address; uvicorn makes it listen."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # the protocol is named because asyncio sets TCP_NODELAY on such sockets only; without it each response waits 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED_SECONDS * 1000)
    try:
        listener.bind((options.host, options.port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"host={options.host} port={options.port} cannot be bound: {error.strerror}. Choose another --port."
        ) from error
    return listener


def start_up_lines(front: Front, seconds: float) -> list[str]:
    """Lines for a person that say what was chosen and why: at most 14."""
    options, info = front.options, front.info
    chosen: list[tuple[str, str]] = []
    for name, value in info.description:
        if name.startswith(" "):  # continues the entry before it
            chosen[-1] = (chosen[-1][0], f"{chosen[-1][1]}; {name.strip()}, {value}")
        elif name == "max_model_len":
            chosen[-1] = (chosen[-1][0], f"{chosen[-1][1]}, {name} {value}")
        else:
            chosen.append((name, value))
    runs = "completions" if info.pooling is None else "texts"
    limits = (
        f"{info.max_num_seqs} {runs} run, {options.max_queued_requests} may wait, more get 429; "
        f"bodies up to {options.max_body_bytes} bytes; {len(options.api_keys) or 'no'} API keys"
    )
    if info.pooling is None:
        limits += (
            f"; tool calls: {options.tool_call_parser or 'by name or required only'}; "
            f"reasoning: {options.reasoning_parser or 'in the content'}"
        )
    process = f"process {info.process_id}, ready after {seconds:.1f} s; {options.max_engine_restarts} restarts"
    lines = [("serving", ", ".join(front.model_names)), *chosen, ("requests", limits), ("engine", process)]
    return [f"{name:18} {value}" for name, value in lines]
