"""Connections with limits, over real sockets: headers and bodies too large or too slow, and too many clients."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from uvicorn.server import ServerState

from outrider.server import descriptors
from outrider.server.connection import Connection, ConnectionLimits
from outrider.server.guards import BodyLimit
from tests.support.log_lines import log_lines

LIMITS = ConnectionLimits(
    max_connections=4,
    max_header_bytes=4096,
    max_header_count=20,
    max_body_bytes=50_000,
    timeout_header=0.2,
    timeout_body=0.3,
)
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Client]]


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of this file read at once."""
    monkeypatch.setattr("outrider.server.connection._LINGER_SECONDS", 0.1)


async def application(scope: Any, receive: Any, send: Any) -> None:
    request = Request(scope, receive)
    response: Response = PlainTextResponse(f"{len(await request.body())} bytes")
    await response(scope, receive, send)


@asynccontextmanager
async def listening(app: Any = application) -> AsyncIterator[Connect]:
    """A server with `LIMITS`, and the function that connects to it."""
    config = uvicorn.Config(app, ws="none", lifespan="off", timeout_keep_alive=1)
    state = ServerState()
    protocol = partial(Connection, config=config, server_state=state, app_state={}, limits=LIMITS)
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    clients: list[Client] = []

    async def connect() -> Client:
        clients.append(await asyncio.open_connection(*server.sockets[0].getsockname()))
        return clients[-1]

    async with server:
        yield connect
        for _, writer in clients:
            writer.close()
        while state.connections:
            await asyncio.sleep(0.01)


async def answer_to(client: Client, *pieces: bytes, pause: float = 0.0) -> str:
    """Everything that the server sends until it closes the connection."""
    reader, writer = client
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
    except ConnectionError:
        pass
    return (await asyncio.wait_for(reader.read(), 10)).decode()


GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ((GET + b"x: " + b"y" * 5000 + b"\r\n\r\n",), 431),
        ((GET, *[b"x: " + b"y" * 1000] * 6), 431),  # one header that never ends
        ((b"GET /" + b"y" * 6000,), 431),
        ((GET + b"".join(b"x%d: 1\r\n" % number for number in range(25)) + b"\r\n",), 431),
        ((POST + b"Transfer-Encoding: chunked\r\n\r\n", b"0\r\n", *[b"x: " + b"y" * 1000 + b"\r\n"] * 6), 431),
        ((POST + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1;" + b"y" * 3000 + b"\r\na\r\n"] * 4), 431),
        ((), 408),  # a connection on which nothing comes
        ((b"\r\n",), 408),
        ((GET,), 408),
        ((GET, *[b"x: y\r\n"] * 9), 408),  # a header now and then
        ((POST + b"Content-Length: 100\r\n\r\n", b"half"), 408),
    ],
)
def test_what_is_too_large_or_too_slow_is_refused_and_closed(pieces: tuple[bytes, ...], status: int) -> None:
    async def run() -> None:
        async with listening() as connect:
            answer = await answer_to(await connect(), *pieces, pause=0.03 if status == 408 else 0.002)
            head, _, body = answer.partition("\r\n\r\n")
            assert head.startswith(f"HTTP/1.1 {status} "), answer
            assert "--" in json.loads(body)["error"]["message"], "it names the option"

    asyncio.run(run())


def test_requests_within_the_limits_are_answered_on_one_connection() -> None:
    async def run() -> None:
        async with listening() as connect:
            reader, writer = await connect()
            chunked = b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 2000 + b"0\r\nlast: 1\r\n\r\n"
            full = b"x: " + b"y" * 3500 + b"\r\n\r\n"
            long = b"Content-Length: 40000\r\n\r\n" + b"z" * 40_000
            for data, size in ((GET + full, 0), (POST + chunked, 2000), (POST + long, 40_000), (GET + b"\r\n", 0)):
                writer.write(data)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                assert await reader.readexactly(len(f"{size} bytes")) == f"{size} bytes".encode()
                await asyncio.sleep(0.25)  # idle: longer than headers may take
            writer.write((GET + b"\r\n") * 100)
            for _ in range(100):
                await reader.readuntil(b"0 bytes")

    asyncio.run(run())


def test_a_connection_is_closed_after_a_body_that_was_refused() -> None:
    async def run() -> None:
        async with listening(BodyLimit(application, max_bytes=LIMITS.max_body_bytes)) as connect:
            head = POST + b"Content-Length: 100000000\r\n\r\n"
            answer = await answer_to(await connect(), head, *[b"z" * 60_000] * 30)
            assert answer.startswith("HTTP/1.1 413 ") and answer.count("HTTP/1.1") == 1
            assert "connection: close" in answer.lower(), "so that no client sends another request on it"

    asyncio.run(run())


async def answers_early(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("no key", status_code=401)(scope, receive, send)


def test_a_body_that_was_not_waited_for_is_dropped_and_the_connection_goes_on() -> None:
    """A body, that is, which the server would have taken, in size and in time."""

    async def run() -> None:
        async with listening(answers_early) as connect:
            reader, writer = await connect()
            for _ in range(3):
                writer.write(POST + b"Content-Length: 40000\r\n\r\n")
                assert await reader.readuntil(b"no key")
                writer.write(b"z" * 40_000)
            writer.write(POST + b"Content-Length: 40000\r\n\r\n")
            assert await reader.readuntil(b"no key")
            assert await asyncio.wait_for(reader.read(), 10) == b"", "it is closed when the body is late"
            answer = await answer_to(await connect(), POST + b"Content-Length: 99999999\r\n\r\n", *[b"z" * 9000] * 90)
            assert answer.count("HTTP/1.1") == 1

    asyncio.run(run())


def test_more_connections_than_the_limit_are_refused_until_one_closes() -> None:
    async def run() -> None:
        async with listening() as connect:
            idle = [await connect() for _ in range(LIMITS.max_connections)]
            await asyncio.sleep(0.05)
            assert (await answer_to(await connect())).startswith("HTTP/1.1 503 ")
            for reader, _ in idle:  # they are late
                assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 408 ")
            _, writer = client = await connect()
            writer.write(GET + b"Connection: close\r\n\r\n")
            assert (await answer_to(client)).startswith("HTTP/1.1 200 ")

    asyncio.run(run())


@pytest.mark.parametrize("soft", [128, 256, 1024, 4096, 1 << 16])
def test_descriptors_are_left_when_every_connection_is_open(soft: int) -> None:
    most = descriptors.max_connections(soft, asked=None)
    assert most >= 16
    assert most + descriptors.backlog(soft) + 32 <= soft, "accepted at once, before the first is closed"
    assert descriptors.max_connections(soft, asked=3) == 3
    assert descriptors.max_connections(soft, asked=1 << 20) == most


def test_an_end_of_descriptors_is_logged_once_a_minute() -> None:
    errors = descriptors.LoopErrors()
    loop = asyncio.new_event_loop()
    with log_lines() as lines:
        for _ in range(2048):
            errors(loop, {"message": "socket.accept() out of system resource", "exception": OSError(24, "Too many")})
    loop.close()
    assert len(lines) == 1 and "ulimit -n" in lines[0] and "WARNING" in lines[0]


def test_other_errors_of_the_loop_are_logged_each(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        for _ in range(2):
            descriptors.LoopErrors()(loop, {"message": "something else"})
    loop.close()
    assert [record.message for record in caplog.records] == ["something else"] * 2
