"""The server under more callers than it takes, callers who leave or do not read, a killed engine, and SIGTERM.

Each server here is a process, as a user starts it. The long versions are in test_soak.py.
"""

import asyncio
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner

from outrider import LLM, RequestOutput, SamplingParams
from outrider.cli import app
from outrider.gate.endpoint import Server as Endpoint
from outrider.gate.endpoint import measure_endpoint
from outrider.gate.prompts import Prompt, read_prompts
from tests.support.running_server import ROOT, RunningServer

from .streaming_callers import StreamRecord, all_at_once, body_of, call

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def holder() -> Iterator[list[RunningServer]]:
    running: list[RunningServer] = []
    yield running
    for server in running:
        server.__exit__()
        assert not any("Traceback" in line for line in server.lines), "\n".join(server.lines)


@pytest.fixture
def server(holder: list[RunningServer]) -> RunningServer:
    """The zoo with its drafter; one for all tests until one ends it."""
    if not holder or holder[-1].process.poll() is not None or holder[-1].get("/health")[0] != 200:
        holder.append(RunningServer("--max-engine-restarts", 1, "--log-requests"))
    return holder[-1]


def alone(server: RunningServer, body: dict[str, Any]) -> StreamRecord:
    (told,) = all_at_once(server.url, [body])
    return told


def check_whole(told: StreamRecord, body: dict[str, Any]) -> None:
    """A stream that had everything: each completion all its tokens, one end, the usage, [DONE]."""
    assert told.status == 200 and told.error is None and told.broke_off is None and told.is_done, told
    count = body.get("n", 1)
    assert told.finish_reasons == dict.fromkeys(range(count), "length")
    assert [len(told.token_ids[index]) for index in range(count)] == [body["max_tokens"]] * count
    assert told.usage is not None and told.usage["completion_tokens"] == count * body["max_tokens"]


def check_refused(told: StreamRecord) -> None:
    """At admission, with a time to come back."""
    assert told.status == 429 and told.retry_after is not None and 1 <= int(told.retry_after) <= 60, told
    error = json.loads(told.body)["error"]
    assert error["code"] == "overloaded" and error["type"] == "rate_limit_error" and error["message"]


def check_nothing_is_held(server: RunningServer) -> dict[str, float]:
    counts = server.wait_until_idle()
    assert counts["kv_cache_usage_perc"] == 0.0, "blocks are lost"
    return counts


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_each_of_500_streams_finishes_or_is_refused(server: RunningServer) -> None:
    """A hundred of the refused come again. What a request says does not depend on how many came with it."""
    bodies = [body_of(prompt=f"def f{index}(", seed=index, max_tokens=2) for index in range(500)]
    before, most = check_nothing_is_held(server), 64 + 256
    first = all_at_once(server.url, bodies)
    memory = server.memory()
    served = [index for index, told in enumerate(first) if told.status == 200]
    again = [index for index in range(500) if index not in served]
    for index in served:
        check_whole(first[index], bodies[index])
    for index in again:
        check_refused(first[index])
    assert len(served) >= most and again, "as many are let in as there is room for, and not all at once"
    check_nothing_is_held(server)
    later = again[-100:]
    second = dict(zip(later, all_at_once(server.url, [bodies[index] for index in later]), strict=True))
    for index, told in second.items():
        check_whole(told, bodies[index])
    after = check_nothing_is_held(server)
    num_served = len(served) + len(later)
    assert after["request_success_total:length"] - before["request_success_total:length"] == num_served
    assert after["generation_tokens_total"] - before["generation_tokens_total"] == 2 * num_served
    grown = [now - then for now, then in zip(server.memory(), memory, strict=True)]
    assert max(grown) < 24 * MEGABYTE, f"front and engine grew by {grown} bytes"
    for index, told in ((served[0], first[served[0]]), (served[-1], first[served[-1]]), (later[-1], second[later[-1]])):
        assert alone(server, bodies[index]).outcome() == told.outcome()


def test_callers_who_leave_give_back_what_they_held(server: RunningServer) -> None:
    """Some read a few events of a stream, one waits for an answer in one piece; those who stay do not notice."""
    stay = [body_of(prompt=f"class A{index}:", seed=index, max_tokens=12, n=1 + index % 2) for index in range(4)]
    leave = [body_of(prompt=f"import a{index}", seed=index, max_tokens=900, n=1 + index % 2) for index in range(11)]
    impatient = body_of(prompt="import b", max_tokens=900, stream=False)
    expected = [told.outcome() for told in all_at_once(server.url, stay)]
    before = check_nothing_is_held(server)

    async def run() -> list[StreamRecord]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            whole = [asyncio.create_task(call(session, server.url, body)) for body in stay]
            waiting = asyncio.create_task(call(session, server.url, impatient))
            await asyncio.gather(
                *(call(session, server.url, body, leaves_after=1 + index % 5) for index, body in enumerate(leave))
            )
            waiting.cancel()
            return await asyncio.gather(*whole)

    told = asyncio.run(run())
    for entry, body in zip(told, stay, strict=True):
        check_whole(entry, body)
    assert [entry.outcome() for entry in told] == expected
    after = check_nothing_is_held(server)
    num_left = sum(body.get("n", 1) for body in leave) + 1
    assert after["request_success_total:abort"] - before["request_success_total:abort"] == num_left


@pytest.mark.slow
def test_a_caller_who_does_not_read_costs_the_others_nothing(server: RunningServer) -> None:
    """Deltas that come while the caller does not read are merged: they arrive late, in fewer chunks, and complete."""
    body = body_of(prompt="x = [", max_tokens=40, n=8, logprobs=20, seed=5)
    prompt = alone(server, body)
    check_whole(prompt, body)
    before = check_nothing_is_held(server)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # so that the server's own buffer stays small
        slow.connect((host, int(port)))
        slow.settimeout(60)
        content = json.dumps(body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        head += f"Content-Length: {len(content)}\r\n\r\n"
        slow.sendall(head.encode() + content)
        ended = "request_success_total:length"
        server.wait_for(lambda counts: counts[ended] - before[ended] == 8)
        check_nothing_is_held(server)
        quick = body_of(prompt="y = [", max_tokens=5)
        check_whole(alone(server, quick), quick)
        late = StreamRecord(status=200)
        for line in _read_all(slow).split(b"\n"):
            if line.startswith(b"data: "):
                late.hear(line[6:].decode())
    check_whole(late, body)
    assert late.outcome() == prompt.outcome()
    assert late.num_chunks < prompt.num_chunks, "nothing was merged: the caller's own buffers took everything"


def _read_all(connection: socket.socket) -> bytes:
    parts = []
    while data := connection.recv(1 << 16):
        parts.append(data)
    return b"".join(parts)


async def begin(
    session: aiohttp.ClientSession, url: str, bodies: list[dict[str, Any]]
) -> list[asyncio.Task[StreamRecord]]:
    """Callers of streams, each of whom has heard something."""
    heard = [StreamRecord() for _ in bodies]
    tasks = [asyncio.create_task(call(session, url, body, told=told)) for body, told in zip(bodies, heard, strict=True)]
    while not all(told.num_chunks for told in heard):
        assert not any(task.done() for task in tasks), "a stream was over before all had begun"
        await asyncio.sleep(0.01)
    return tasks


@pytest.mark.slow
def test_the_benchmark_and_the_gate_count_what_the_engine_did(server: RunningServer, tmp_path: Path) -> None:
    """The engine in this process is asked the same; `bench serve` with another number of drafts gets the same texts."""
    zoo = ROOT / "zoo"
    listed = read_prompts(zoo / "prompts.jsonl")[:5]
    speculative = {"method": "eagle3", "model": str(zoo / "tiny-eagle3"), "num_speculative_tokens": 3}
    llm = LLM(str(zoo / "tiny"), speculative_config=speculative)
    check_nothing_is_held(server)
    gated = measure_endpoint(Endpoint(server.url, "zoo/tiny"), listed, max_tokens=14, temperature=0.7, seed=20)
    outputs = [
        _complete(llm, prompt, SamplingParams(max_tokens=14, temperature=0.7, seed=20 + index))
        for index, prompt in enumerate(listed)
    ]
    for sample, output in zip(gated.samples, outputs, strict=True):
        stats = output.speculation
        assert sample.num_tokens == len(output.outputs[0].token_ids)
        assert (sample.num_drafts, sample.num_draft_tokens) == (stats.num_drafts, stats.num_draft_tokens)
        assert sample.num_accepted_tokens_per_pos == tuple(stats.num_accepted_tokens_per_pos)
    results = [_bench(server, tmp_path, "--extra-body", f'{{"num_speculative_tokens": {k}}}') for k in (3, 0)]
    drafted, plain = results
    assert drafted["generated_texts"] == plain["generated_texts"] == [output.outputs[0].text for output in outputs]
    assert drafted["completed"] == 5 and drafted["metrics_note"] is None and plain["metrics_note"] is None
    assert drafted["total_output_tokens"] == sum(len(output.outputs[0].token_ids) for output in outputs)
    assert drafted["total_input_tokens"] == sum(len(output.prompt_token_ids) for output in outputs)
    assert drafted["spec_decode_num_drafts"] == sum(output.speculation.num_drafts for output in outputs)
    assert drafted["spec_decode_accepted_tokens"] == sum(output.speculation.num_accepted_tokens for output in outputs)
    assert "spec_decode_num_drafts" not in plain


def _complete(llm: LLM, prompt: Prompt, params: SamplingParams) -> RequestOutput:
    assert not prompt.is_chat, "the first prompts of the zoo are code to be continued"
    return llm.generate(prompt.turns[0], params)[0]


def _bench(server: RunningServer, folder: Path, *options: str) -> dict[str, Any]:
    arguments = [
        "bench", "serve", "--base-url", server.url, "--dataset-name", "spec_bench", "--dataset-path",
        str(ROOT / "zoo" / "prompts.jsonl"), "--disable-shuffle", "--num-prompts", "5", "--output-len", "14",
        "--temperature", "0.7", "--seed", "20", "--result-dir", str(folder), "--result-filename", "run.json",
        "--save-detailed", *options,
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads((folder / "run.json").read_text())


def test_each_request_is_one_line_of_the_log_without_its_text(server: RunningServer) -> None:
    begin_line = len(server.lines)

    def logged(count: int) -> list[str]:
        """The lines of the log since the beginning, once there are `count`."""
        end = time.monotonic() + 30
        while (
            len(found := [line for line in server.lines[begin_line:] if "outrider.server.request_log" in line]) < count
        ):
            assert time.monotonic() < end, server.lines[begin_line:]
            time.sleep(0.02)
        return [line.partition("request_log: ")[2] for line in found]

    secret = "the secret is 7719"
    whole = alone(server, body_of(prompt=secret, n=2, max_tokens=4, request_id="mine"))
    assert whole.usage is not None
    num_prompt_tokens = whole.usage["prompt_tokens"]
    counts = f"prompt_tokens={num_prompt_tokens} output_tokens=8 finish_reason=length"
    assert re.fullmatch(
        rf"id=cmpl-mine endpoint=/v1/completions status=200 {counts} seconds=\d+\.\d{{3}}", logged(1)[0]
    )
    assert alone(server, {"prompt": secret, "nonsense 7719": 1}).status == 400
    assert re.fullmatch(r"endpoint=/v1/completions status=400 seconds=\d+\.\d{3}", logged(2)[1])

    async def leave() -> None:
        async with aiohttp.ClientSession() as session:
            await call(session, server.url, body_of(prompt=secret, max_tokens=800), leaves_after=1)

    asyncio.run(leave())
    assert " finish_reason=abort " in logged(3)[2]
    assert server.get("/v1/models/a%0Ab=1")[0] == 404
    assert logged(4)[3].startswith(r'endpoint="/v1/models/a\nb=1" status=404 ')
    assert server.get("/health")[0] == 200 and len(logged(4)) == 4, "health checks are not logged"
    assert "7719" not in "\n".join(server.lines[begin_line:])


def test_a_killed_engine_is_told_at_once_and_started_again(server: RunningServer) -> None:
    body = body_of(prompt="def g(", max_tokens=9)
    before = alone(server, body)
    first_engine = server.engine.pid
    streams, waiting = asyncio.run(_killed_under_load(server))
    for stream in streams:
        assert stream.status == 200 and stream.is_done and not stream.finish_reasons and stream.broke_off is None
        assert stream.error is not None and stream.error["code"] == "unavailable"
    assert waiting.status == 503 and json.loads(waiting.body)["error"]["code"] == "unavailable"
    late = alone(server, body)
    assert late.status == 503 and "being restarted" in late.body and late.retry_after is not None
    wait_until_healthy(server)
    assert server.engine.pid != first_engine
    log = "\n".join(server.lines)
    assert "ERROR outrider.engine.client: the engine process exited unexpectedly with code -9" in log
    assert "WARNING outrider.server.front: restarting the engine: 1 of 1" in log
    after = alone(server, body)
    check_whole(after, body)
    assert after.outcome() == before.outcome()
    assert check_nothing_is_held(server)["generation_tokens_total"] == 9, "a new process counts from zero"


async def _killed_under_load(server: RunningServer) -> tuple[list[StreamRecord], StreamRecord]:
    async with aiohttp.ClientSession() as session:
        whole = asyncio.create_task(call(session, server.url, body_of(prompt="wait", max_tokens=800, stream=False)))
        bodies = [body_of(prompt=f"long {index}", max_tokens=800) for index in range(5)]
        tasks = await begin(session, server.url, bodies)
        os.kill(server.engine.pid, signal.SIGKILL)
        return await asyncio.gather(*tasks), await whole


def wait_until_healthy(server: RunningServer) -> None:
    end = time.monotonic() + 120
    assert server.get("/health")[0] == 503, "an engine that is gone is not healthy"
    while server.get("/health")[0] != 200:
        assert time.monotonic() < end, "the engine was not started again"
        time.sleep(0.1)


def test_sigterm_lets_what_runs_end_and_takes_nothing_new(server: RunningServer) -> None:
    bodies = [body_of(prompt=f"while {index}", seed=index, max_tokens=40) for index in range(4)]
    expected = [told.outcome() for told in all_at_once(server.url, bodies)]
    engine = server.engine

    async def run() -> list[StreamRecord]:
        async with aiohttp.ClientSession() as session:
            tasks = await begin(session, server.url, bodies)
            server.terminate()
            while (await asyncio.to_thread(server.get, "/health"))[0] == 200:
                await asyncio.sleep(0.01)
            assert not any(task.done() for task in tasks), "too short to see the server drain"
            late = await call(session, server.url, bodies[0])
            assert late.status == 503 and "shutting down" in late.body
            return await asyncio.gather(*tasks)

    told = asyncio.run(run())
    for entry, body in zip(told, bodies, strict=True):
        check_whole(entry, body)
    assert [entry.outcome() for entry in told] == expected
    assert server.end() == 0 and not engine.is_running()
