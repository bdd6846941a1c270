"""Ways to an engine: `LLM.generate`, the engine's process, `AsyncLLM`, and a server over HTTP.

A way starts one engine and is used for all loads of one configuration. `Online` ways fill an `Answer` while it comes
in, so that a load may watch it. Greedy sampling, no end before `max_tokens`.
"""

import asyncio
import contextlib
import gc
import itertools
import json
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch

from outrider import LLM, AsyncLLM, SamplingParams
from outrider.bench.serve.answer import Answer
from outrider.bench.serve.workload import Ask
from outrider.core.config import engine_config
from outrider.engine.admission import Admission
from outrider.engine.client import EngineClient
from outrider.engine.stats import EngineStats
from outrider.engine.tokenizer import Tokenizer
from outrider.gate.metrics_page import parse_page

READY_SECONDS = 600.0
"""Time that a server may take to load a model and capture graphs."""
MODEL_NAME = "traffic"


class Unavailable(Exception):  # noqa: N818 - it is a reason, not an error
    """A way cannot be taken on this machine."""


class Offline(Protocol):
    """Takes all requests together and returns when the last one has ended."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def run(self, asks: Sequence[Ask]) -> list[Answer]: ...

    def steps(self) -> tuple[int, int] | None:
        """Steps so far, and those of them that were replayed as graphs; None if they are not counted."""
        ...


class Online(Protocol):
    """Takes requests one by one."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def ask(self, ask: Ask, answer: Answer) -> None:
        """Run one request and fill its answer. Cancelling aborts the request."""
        ...

    async def steps(self) -> tuple[int, int] | None:
        """Steps so far and replayed ones, as in `Offline.steps`."""
        ...


def params_of(ask: Ask) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=ask.max_tokens, ignore_eos=True)


class InProcess:
    """`LLM.generate`. The engine itself says when each request had its first and its last token."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        self._model, self._options = model, options

    def start(self) -> None:
        self._llm: LLM | None = LLM(self._model, **self._options)

    def stop(self) -> None:
        self._llm = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def run(self, asks: Sequence[Ask]) -> list[Answer]:
        assert self._llm is not None
        begin = time.perf_counter()
        outputs = self._llm.generate(
            [{"prompt_token_ids": ask.prompt} for ask in asks], [params_of(ask) for ask in asks]
        )
        end = time.perf_counter()
        answers = []
        for output in outputs:
            timing = output.timing
            assert timing is not None and timing.prefill is not None and timing.decode is not None
            first = begin + timing.queue + timing.prefill
            answers.append(
                Answer(
                    sent=begin,
                    deliveries=[first, first + timing.decode],
                    ended=end,
                    num_prompt_tokens=len(output.prompt_token_ids),
                    num_output_tokens=len(output.outputs[0].token_ids),
                )
            )
        return answers

    def steps(self) -> tuple[int, int] | None:
        assert self._llm is not None
        return _steps(self._llm.engine.stats())


class EngineProcess:
    """The engine in its own process, as `outrider serve` runs it, without HTTP in front."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        self._config = engine_config(model, **options)
        self._ids = itertools.count()
        self._stats: EngineStats | None = None

    async def start(self) -> None:
        self._client = EngineClient(self._config, log_level="warning")
        self._client.on_stats = self._note
        info = await self._client.start()
        self._admission = Admission(
            tokenizer=Tokenizer(Path(self._config.model)),
            vocab_size=info.vocab_size,
            max_model_len=info.max_model_len,
            eos_token_ids=info.eos_token_ids,
            seed=0,
        )

    def _note(self, stats: EngineStats) -> None:
        self._stats = stats

    async def stop(self) -> None:
        await self._client.stop()

    async def ask(self, ask: Ask, answer: Answer) -> None:
        request = self._admission.request(
            {"prompt_token_ids": ask.prompt}, params_of(ask), request_id=str(next(self._ids))
        )
        job = self._client.add([request])
        try:
            while deltas := await job.take():
                _note(answer, sum(len(delta.token_ids) for delta in deltas))
        finally:
            job.close()
        answer.ended = time.perf_counter()

    async def steps(self) -> tuple[int, int] | None:
        await asyncio.sleep(0.2)  # the process sends its counts when it runs out of work
        return _steps(self._stats) if self._stats is not None else None


class Asynchronous:
    """`AsyncLLM`."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        self._model, self._options = model, options

    async def start(self) -> None:
        self._llm: AsyncLLM | None = AsyncLLM(self._model, **self._options)

    async def stop(self) -> None:
        assert self._llm is not None
        self._llm.shutdown()
        self._llm = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    async def ask(self, ask: Ask, answer: Answer) -> None:
        assert self._llm is not None
        deltas = self._llm.generate({"prompt_token_ids": ask.prompt}, params_of(ask))
        async with contextlib.aclosing(deltas):  # type: ignore[type-var]
            async for delta in deltas:
                _note(answer, len(delta.token_ids))
        answer.ended = time.perf_counter()

    async def steps(self) -> tuple[int, int] | None:
        assert self._llm is not None
        return _steps(await self._llm.stats())


class Server:
    """A server in its own process, over HTTP: its command with the options, the address, the model's name."""

    def __init__(self, command: Sequence[str], options: dict[str, Any]) -> None:
        self.command = [*command, *_arguments(options)]

    async def start(self) -> None:
        if find_spec("aiohttp") is None:
            raise Unavailable("the client needs aiohttp: pip install 'outrider[bench]'")
        from outrider.bench.serve.client import Client

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._process = subprocess.Popen(
            [*self.command, "--port", str(port), "--served-model-name", MODEL_NAME], stdout=subprocess.DEVNULL
        )
        self._client = Client(f"http://127.0.0.1:{port}", headers={})
        await self._client.__aenter__()
        end = time.monotonic() + READY_SECONDS
        while not await self._client.is_healthy():
            if self._process.poll() is not None or time.monotonic() > end:
                await self.stop()
                raise Unavailable(f"the server did not start: {' '.join(self.command)}")
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        await self._client.__aexit__()
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, 30.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    async def ask(self, ask: Ask, answer: Answer) -> None:
        body = {
            "model": MODEL_NAME,
            **ask.body(is_chat=False),
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        await self._client.ask("/v1/completions", body, answer=answer)

    async def steps(self) -> tuple[int, int] | None:
        await asyncio.sleep(0.2)  # the engine sends its counts when it runs out of work
        found = {entry.name: int(entry.value) for entry in parse_page(await self._client.page("/metrics"))}
        names = ("outrider:num_steps_total", "outrider:num_replayed_steps_total")
        if not all(name in found for name in names):
            return None
        return found[names[0]], found[names[1]]


def outrider_way(name: str, model: str, options: dict[str, Any]) -> "Offline | Online":
    """The way of this name to Outrider. Raises Unavailable."""
    if name != "http":
        return {"llm": InProcess, "engine": EngineProcess, "async": Asynchronous}[name](model, options)
    missing = [package for package in ("uvicorn", "starlette", "pydantic") if find_spec(package) is None]
    if missing:
        raise Unavailable(f"the server needs {', '.join(missing)}: pip install 'outrider[server]'")
    program = "from outrider.cli import main; main()"
    command = [sys.executable, "-P", "-c", program, "serve", model, "--max-queued-requests", "65536"]
    return Server(command, options)


def _arguments(options: dict[str, Any]) -> list[str]:
    """Options of an engine as a command line, in the form that both servers read."""
    arguments = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            arguments += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return arguments


def _note(answer: Answer, num_tokens: int) -> None:
    if num_tokens:
        answer.deliveries.append(time.perf_counter())
        answer.num_output_tokens += num_tokens


def _steps(stats: EngineStats) -> tuple[int, int]:
    return stats.num_steps, stats.num_replayed_steps
