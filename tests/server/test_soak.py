"""The server for a while: waves of mixed callers, readers who do not read, engines killed one after the other.

`make soak` runs it, and `make soak SECONDS=3600` runs waves for an hour; the bounded versions are in
test_reliability.py.
"""

import asyncio
import io
import json
import os
import random
import signal
import socket
import time
from typing import Any

import aiohttp
import pytest

from benchmarks.hostile_requests import REQUESTS, Hostile
from tests.support.running_server import RunningServer

from .streaming_callers import TIMEOUT, StreamRecord, body_of, call
from .test_hostile_requests import SERVED
from .test_reliability import MEGABYTE, begin, check_nothing_is_held, check_refused, check_whole, wait_until_healthy

SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
"""Seconds in which waves begin."""
pytestmark = [pytest.mark.soak, pytest.mark.timeout(900 + SOAK_SECONDS)]

NUM_CALLERS, NUM_WARM, NUM_LEAST_WAVES = 500, 4, 6
"""Memory is compared after the fourth wave: by then every buffer has had its size, and grammars are kept."""
NUM_LEAVERS, NUM_SLOW, NUM_HOSTILE = 150, 50, 50
"""Callers of a wave who disconnect, who read slowly, and who send hostile requests beside the others."""
HOSTILE = [asked for asked in REQUESTS if asked.name not in SERVED and not asked.headers]


def mixed_body(index: int) -> dict[str, Any]:
    """The body of caller `index`, every time the same; together the bodies use every field of a request."""
    rng = random.Random(index)
    body = body_of(
        prompt=f"def function_{index}({'x, ' * rng.randrange(30)}y):",
        seed=index,
        max_tokens=rng.choice([1, 3, 6, 12]),
        temperature=rng.choice([0.0, 0.7, 1.2]),
        n=rng.choice([1, 1, 1, 3]),
        num_speculative_tokens=rng.choice([0, 1, 3]),
    )
    extras: list[dict[str, Any]] = [
        {}, {}, {"logprobs": 3}, {"top_k": 20, "min_p": 0.02}, {"presence_penalty": 0.6, "repetition_penalty": 1.1},
        {"structured_outputs": {"regex": "[a-z ]{200}"}, "ignore_eos": False}, {"priority": rng.randrange(3)},
        {"logit_bias": {"17": 2.0}}, {"bad_words": ["return"]},
    ]  # fmt: skip
    return body | extras[index % len(extras)]


async def wave(
    url: str, leavers: set[int], slow: set[int], hostile: list[Hostile]
) -> tuple[dict[int, StreamRecord], int]:
    """Every caller once, and hostile requests beside them; also the number of those whose grammar cannot be continued.
    Refused callers retry after the time in Retry-After; leavers disconnect after a few events."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=TIMEOUT) as session:

        async def one(index: int) -> StreamRecord:
            while True:
                told = await call(
                    session,
                    url,
                    mixed_body(index),
                    leaves_after=1 + index % 3 if index in leavers else 0,
                    pause=0.2 if index in slow else 0.0,
                )
                if told.status != 429:
                    return told
                check_refused(told)
                await asyncio.sleep(int(told.retry_after or 1) + random.Random(index).random())

        async def harm(asked: Hostile) -> str:
            await asyncio.sleep(random.Random(asked.name).random() * 5)
            headers = {"Content-Type": "application/json"}
            async with session.post(url + asked.path, data=io.BytesIO(asked.body()), headers=headers) as response:
                text = await response.text()
                assert 400 <= response.status < 500, text
                return text

        callers = [asyncio.create_task(one(index)) for index in range(NUM_CALLERS)]
        answers = await asyncio.gather(*map(harm, hostile))
        num_failed = sum("generation_failed" in text for text in answers)
        return dict(enumerate(await asyncio.gather(*callers))), num_failed


def test_waves_of_callers_leave_nothing_behind() -> None:
    first: dict[int, tuple[Any, ...]] = {}
    memory: list[tuple[int, int]] = []
    # few blocks: a CPU's KV cache takes memory as it fills, so the first waves have to fill all of it
    with RunningServer("--scheduling-policy", "priority", "--num-gpu-blocks-override", "1024") as server:
        descriptors = server.front.num_fds(), server.engine.num_fds()
        end, number, num_errors = time.monotonic() + SOAK_SECONDS, 0, 0
        while number < NUM_LEAST_WAVES or time.monotonic() < end:
            dice = random.Random(number)
            chosen = dice.sample(range(NUM_CALLERS), NUM_LEAVERS + NUM_SLOW)
            leavers, slow = set(chosen[:NUM_LEAVERS]), set(chosen[NUM_LEAVERS:])
            begun = time.monotonic()
            told, num_failed = asyncio.run(wave(server.url, leavers, slow, dice.choices(HOSTILE, k=NUM_HOSTILE)))
            for index in range(NUM_CALLERS):
                if index in leavers:
                    assert told[index].status == 200 and told[index].error is None
                else:
                    check_whole(told[index], mixed_body(index))
                    assert first.setdefault(index, told[index].outcome()) == told[index].outcome(), f"caller {index}"
            counts = check_nothing_is_held(server)
            num_errors += num_failed
            assert counts["request_success_total:error"] == num_errors
            check_descriptors(server, descriptors)
            memory.append(server.memory())
            front, engine = (size / MEGABYTE for size in memory[-1])
            print(f"wave {number}: {time.monotonic() - begun:.1f} s, front {front:.1f} MiB, engine {engine:.1f} MiB")
            number += 1
        for index in sorted(first)[::50]:
            assert asyncio.run(_once(server.url, mixed_body(index))).outcome() == first[index], "not as in the crowd"
        assert not any("Traceback" in line for line in server.lines), "\n".join(server.lines)
    for name, sizes in zip(("front", "engine"), zip(*memory, strict=True), strict=True):
        grown = max(sizes[NUM_WARM:]) - max(sizes[:NUM_WARM])
        assert grown < 24 * MEGABYTE, f"the {name} grew by {grown} bytes: {sizes}"


def check_descriptors(server: RunningServer, before: tuple[int, int]) -> None:
    """Waits until descriptors are no more than before: connections of the last wave close. A loop may open its own."""
    end = time.monotonic() + 30
    while (now := (server.front.num_fds(), server.engine.num_fds())) > (before[0] + 2, before[1] + 1):
        assert time.monotonic() < end, f"{now} descriptors, and {before} before"
        time.sleep(0.1)


def test_readers_who_never_read_are_bounded_by_their_outputs() -> None:
    """64 callers of long streams who read nothing; the engine serves others, and the front holds each output once."""
    num_callers = 64
    body = body_of(prompt="x = [", max_tokens=120, n=2, logprobs=20)
    with RunningServer() as server:
        host, port = server.url.removeprefix("http://").split(":")
        asyncio.run(_once(server.url, body))
        front_before = server.memory()[0]
        content = json.dumps(body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        connections = []
        for _ in range(num_callers):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            connection.connect((host, int(port)))
            connection.sendall(head + content)
            connections.append(connection)
        server.wait_for(lambda counts: counts["request_success_total:length"] == 2 * num_callers + 2, seconds=300)
        check_nothing_is_held(server)
        held = server.memory()[0] - front_before
        print(f"front: {held / MEGABYTE:.1f} MiB for {num_callers} callers who do not read")
        assert held < 2 * num_callers * MEGABYTE
        for connection in connections:
            connection.close()
        check_whole(asyncio.run(_once(server.url, body)), body)
        assert not any("Traceback" in line for line in server.lines), "\n".join(server.lines)


async def _once(url: str, body: dict[str, Any]) -> StreamRecord:
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        return await call(session, url, body)


def test_engines_killed_one_after_the_other() -> None:
    """Each is started again until the option's number is used up; then the server stays, and says that it is red."""
    num_restarts = 4
    body = body_of(prompt="def g(", max_tokens=9)
    with RunningServer("--max-engine-restarts", num_restarts) as server:
        descriptors = server.front.num_fds(), server.engine.num_fds()
        expected = asyncio.run(_once(server.url, body)).outcome()
        fronts = []
        for number in range(num_restarts + 1):
            asyncio.run(_kill_under_load(server))
            if number < num_restarts:
                wait_until_healthy(server)
                told = asyncio.run(_once(server.url, body))
                check_whole(told, body)
                assert told.outcome() == expected
                check_nothing_is_held(server)
                check_descriptors(server, descriptors)
                fronts.append(server.memory()[0])
        print("front after each restart:", [f"{size / MEGABYTE:.1f} MiB" for size in fronts])
        assert fronts[-1] - fronts[0] < 16 * MEGABYTE
        status, text = server.get("/health")
        assert status == 503 and json.loads(text) == {"status": "engine_dead"}
        late = asyncio.run(_once(server.url, body))
        assert late.status == 503 and "Restart the server" in late.body
        assert server.get("/metrics")[0] == 200
        server.wait_for(lambda _: not server.front.children())
        server.terminate()
        assert server.end() == 0


async def _kill_under_load(server: RunningServer) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=TIMEOUT) as session:
        bodies = [body_of(prompt=f"long {index}", seed=index, max_tokens=1500) for index in range(48)]
        tasks = await begin(session, server.url, bodies)
        queued = [asyncio.create_task(call(session, server.url, body)) for body in bodies]
        await asyncio.sleep(0.2)
        os.kill(server.engine.pid, signal.SIGKILL)
        for told in await asyncio.gather(*tasks, *queued):
            assert (told.status == 200 and told.is_done and told.error is not None) or told.status == 503, told
            error = told.error or json.loads(told.body)["error"]
            assert error["code"] == "unavailable"


def test_a_drain_that_takes_too_long_ends_what_is_left() -> None:
    with RunningServer("--drain-seconds", 1) as server:
        engine = server.engine

        async def run() -> list[StreamRecord]:
            async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
                bodies = [body_of(prompt=f"while {index}", max_tokens=1900) for index in range(8)]
                tasks = await begin(session, server.url, bodies)
                server.terminate()
                return await asyncio.gather(*tasks)

        for told in asyncio.run(run()):
            assert told.status == 200 and told.is_done and not told.finish_reasons
            assert told.error is not None and told.error["code"] == "unavailable"
        assert server.end() == 0 and not engine.is_running()
        assert not any("Traceback" in line for line in server.lines), "\n".join(server.lines)
