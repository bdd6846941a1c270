"""`AsyncLLM` and its engine's process: names, event loops, errors, log, and what the process takes from the caller."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from outrider import (
    AsyncLLM,
    CheckpointError,
    ConfigError,
    EngineDeadError,
    OutputDelta,
    RequestError,
    RequestOutput,
    SamplingParams,
    SpeculationStats,
    UnsupportedError,
)
from outrider.core import log
from outrider.engine.messages import Abort, Add, Added, Begin, Count, Counted, Failed, Logged, Stopped, Turn
from tests.support.log_lines import log_lines
from tests.support.scripted_engine import INFO, EngineEnd, play_engine

from .text_model import write_text_model

IDS = {"prompt_token_ids": [1, 2, 3]}
ENDLESS = SamplingParams(max_tokens=200, ignore_eos=True)


def last_delta(request_id: str, reason: str = "length") -> OutputDelta:
    output = RequestOutput(
        request_id=request_id, prompt=None, prompt_token_ids=[1, 2, 3], outputs=[], seed=0, num_cached_tokens=0,
        num_preemptions=0, speculation=SpeculationStats(),
    )  # fmt: skip
    return OutputDelta(
        request_id=request_id, index=0, text="", token_ids=[4], is_draft=[False], finish_reason=reason, output=output
    )


async def read(llm: AsyncLLM, *, request_id: str | None = None) -> list[OutputDelta]:
    return [delta async for delta in llm.generate(IDS, ENDLESS, request_id=request_id)]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch, model: str) -> Iterator[AsyncLLM]:
    """Its engine ends every request at once, except one that holds token 9: that one ends when it is aborted."""

    def play(engine: EngineEnd, _: Begin) -> None:
        engine.send(INFO)
        while True:
            message = engine.receive()
            if isinstance(message, Add):
                name = message.request.request_id
                ends = 9 not in message.request.prompt_token_ids
                engine.send(Turn([Added(name)], [last_delta(name)] if ends else [], None))
            elif isinstance(message, Abort):
                engine.send(Turn([], [last_delta(message.request_id, "abort")], None))
            elif isinstance(message, Count):
                engine.send(Turn([Counted(message.number, f"counters {message.number}")], [], None))  # type: ignore[arg-type]

    play_engine(monkeypatch, play)
    llm = AsyncLLM(model, skip_tokenizer_init=True)
    yield llm
    llm.shutdown()


def test_a_request_has_its_callers_name_and_another_one_in_the_engine(answering: AsyncLLM) -> None:
    async def scenario() -> None:
        for _ in range(2):  # a name is free once its request has ended
            (delta,) = await read(answering, request_id="mine")
            assert delta.request_id == "mine" and delta.output is not None and delta.output.request_id == "mine"
        first, second = [(await read(answering))[0].request_id for _ in range(2)]
        assert first != second

    asyncio.run(scenario())


def test_a_name_in_use_is_refused_until_its_request_has_ended(answering: AsyncLLM) -> None:
    async def scenario() -> None:
        waiting = answering.generate({"prompt_token_ids": [9]}, ENDLESS, request_id="mine")
        first = asyncio.ensure_future(anext(waiting))
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="request_id='mine' is in use"):
            await read(answering, request_id="mine")
        await answering.abort("mine")
        assert (await asyncio.wait_for(first, 20)).finish_reason == "abort"
        assert (await read(answering, request_id="mine"))[0].finish_reason == "length"
        await answering.abort("nobody")
        await waiting.aclose()  # type: ignore[attr-defined]

    asyncio.run(scenario())


def test_a_request_that_is_aborted_while_its_prompt_is_checked_ends(
    answering: AsyncLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_check = threading.Event()
    check = answering._admission.request

    def slow(*arguments: object, **options: object) -> object:
        may_check.wait(10)
        return check(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(answering._admission, "request", slow)

    async def scenario() -> None:
        waiting = answering.generate({"prompt_token_ids": [9]}, ENDLESS, request_id="mine")
        first = asyncio.ensure_future(anext(waiting))
        await asyncio.sleep(0)
        await answering.abort("mine")
        may_check.set()
        assert (await asyncio.wait_for(first, 20)).finish_reason == "abort"
        await waiting.aclose()  # type: ignore[attr-defined]

    asyncio.run(scenario())


def test_one_event_loop_after_another_is_served_but_not_two_at_once(answering: AsyncLLM) -> None:
    for _ in range(2):
        assert len(asyncio.run(read(answering))) == 1

    def elsewhere() -> None:
        with pytest.raises(RequestError, match="another event loop, which still runs"):
            asyncio.run(read(answering))

    async def scenario() -> None:
        await read(answering)
        await asyncio.to_thread(elsewhere)
        await read(answering)

    asyncio.run(scenario())


def test_counters_are_those_of_the_moment(answering: AsyncLLM) -> None:
    async def scenario() -> None:
        assert [await answering.stats() for _ in range(2)] == ["counters 0", "counters 1"]

    asyncio.run(scenario())


def test_calls_after_the_end_are_refused(answering: AsyncLLM) -> None:
    async def scenario() -> None:
        deltas = answering.generate({"prompt_token_ids": [9]}, ENDLESS)
        running = asyncio.ensure_future(anext(deltas))
        await asyncio.sleep(0.05)
        answering.shutdown()
        for call in (running, read(answering), answering.stats(), answering.abort("x")):
            with pytest.raises(RequestError, match="the engine has stopped"):
                await call

    asyncio.run(scenario())


def test_the_error_that_ended_the_engine_is_told(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    def play(engine: EngineEnd, _: Begin) -> None:
        engine.send(INFO)
        engine.receive()
        engine.send(Stopped("RuntimeError('no memory')"))

    play_engine(monkeypatch, play)
    llm = AsyncLLM(model, skip_tokenizer_init=True)

    async def scenario() -> None:
        for match in ("died while this request ran", "is not running"):
            with pytest.raises(EngineDeadError, match=rf"{match}: RuntimeError\('no memory'\).*Make a new AsyncLLM"):
                await read(llm)
        with pytest.raises(EngineDeadError, match="no memory"):
            await llm.stats()

    with log_lines() as lines:
        asyncio.run(scenario())
        for thread in threading.enumerate():
            if thread.name == "outrider-reap":
                thread.join()
    assert lines == ["ERROR outrider.engine.client: the engine process exited unexpectedly with code 7"]
    llm.shutdown()


@pytest.mark.parametrize("error", [CheckpointError("a"), UnsupportedError("b"), ConfigError("c")])
def test_an_error_at_startup_has_its_own_type(monkeypatch: pytest.MonkeyPatch, model: str, error: Exception) -> None:
    play_engine(monkeypatch, lambda engine, _: engine.send(Failed(str(error), error)))  # type: ignore[arg-type]
    with pytest.raises(type(error), match=str(error)) as raised:
        AsyncLLM(model, skip_tokenizer_init=True)
    assert type(raised.value) is type(error)


def test_a_process_that_exits_at_startup_is_told(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    play_engine(monkeypatch, lambda engine, _: None)
    with pytest.raises(EngineDeadError, match="exited during startup"):
        AsyncLLM(model, skip_tokenizer_init=True)


def test_records_of_the_process_are_logged_here(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    begun: list[Begin] = []
    record = logging.LogRecord("outrider.somewhere", logging.WARNING, "f.py", 1, "it is %s", ("warm",), None)
    quiet = logging.LogRecord("outrider.somewhere", logging.DEBUG, "f.py", 1, "a detail", (), None)

    def play(engine: EngineEnd, begin: Begin) -> None:
        begun.append(begin)
        engine.send(Logged([record, quiet]), INFO)
        engine.receive()

    play_engine(monkeypatch, play)
    with log_lines(logging.INFO) as lines:
        AsyncLLM(model, skip_tokenizer_init=True).shutdown()
    assert lines == ["WARNING outrider.somewhere: it is warm"]
    assert begun[0].log_level == logging.INFO and begun[0].skip_tokenizer_init
    assert begun[0].torch_settings.num_threads == torch.get_num_threads()


def test_a_forwarded_record_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger("outrider"), "propagate", True)  # and back again after the test
    with log_lines(logging.INFO) as lines:
        log.forward(logging.INFO, records.append)
        try:
            raise ValueError("a reason")
        except ValueError:
            logging.getLogger("outrider.core").exception("request %s failed", 5)
        logging.getLogger("outrider.core").debug("a detail")
    assert len(lines) == 1, "other handlers see the record as before"
    (record,) = records
    assert record.args is None and record.exc_info is None
    assert "request 5 failed" in record.getMessage() and "ValueError: a reason" in record.getMessage()


SCRIPT = """
    import asyncio, os, sys, time
    from outrider import AsyncLLM, SamplingParams

    drafter = {{"method": "mine.repeat", "num_speculative_tokens": 2}}
    llm = AsyncLLM({model!r}, speculative_config=drafter, max_model_len=256)

    async def run():
        params = SamplingParams(max_tokens=12, ignore_eos=True, temperature=0.0)
        async for delta in llm.generate("def add(a, b):", params):
            if delta.output is not None:
                print(sum(delta.output.outputs[0].is_draft), llm._client.info.process_id, os.getpid(), flush=True)

    asyncio.run(run())
    if os.fork() == 0:  # a process that holds the socket open
        time.sleep(30)
        os._exit(0)
    sys.stdin.read()
"""

DRAFTER = """
    import torch
    from outrider.speculation.drafter import BaseDrafter

    class Drafter(BaseDrafter):
        def propose(self, batch, *, hidden, verified):
            last = self.table.num_tokens[batch.rows, None] - 1
            return self.table.token_ids[batch.rows].long().gather(1, last).expand(-1, batch.num_proposals)
"""


def is_running(process_id: int) -> bool:
    status = Path(f"/proc/{process_id}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_a_script_without_a_guard_leaves_no_process_when_it_is_killed(tmp_path: Path) -> None:
    """Its drafter is a module beside the script, which the engine's process finds; and a process that it forked is
    still there when the script is killed."""
    model = write_text_model(tmp_path / "model")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "repeat.py").write_text(textwrap.dedent(DRAFTER))
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).format(model=str(model)))
    command = [sys.executable, str(script)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", process_group=0
    ) as script_process:
        assert script_process.stdout is not None
        num_drafts, engine, own = map(int, script_process.stdout.readline().split())
        try:
            assert num_drafts >= 0 and engine != own == script_process.pid and is_running(engine)
            script_process.kill()
            script_process.wait()
            end = time.monotonic() + 15
            while is_running(engine) and time.monotonic() < end:
                time.sleep(0.1)
            assert not is_running(engine)
        finally:
            os.killpg(script_process.pid, signal.SIGKILL)
