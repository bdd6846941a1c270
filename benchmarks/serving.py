"""Tokens per second that one core delivers to callers: text from ids, and text to HTTP.

The front (HTTP, JSON, server-sent events) runs as in `outrider serve`. The engine process is replaced by one that sends
prepared deltas at a steady pace, so that only the front is measured. 64 callers in a third process read their streams.
Seconds are CPU time of the front, which excludes other work on the machine; tokens per second of CPU time are the limit
of one core. The engine sends one delta for each stream and turn, of 1 token, or of 2.5 as in a step with drafts; when
the front lags it merges deltas into fewer events.

    PYTHONPATH=src python3 -m benchmarks.serving
"""

import asyncio
import datetime
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import uvicorn

import outrider.engine.client
from benchmarks.timing import RESULTS, Table
from outrider.core.config import engine_config
from outrider.core.outputs import CompletionOutput, OutputDelta, RequestOutput, SpeculationStats
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.engine.channel import Channel
from outrider.engine.messages import Add, Added, EngineInfo, Turn
from outrider.engine.text import OutputText
from outrider.engine.tokenizer import Tokenizer
from outrider.server.app import build_app
from outrider.server.front import Front
from outrider.server.options import ServerOptions

ZOO = Path(__file__).parents[1] / "zoo"
NUM_CALLERS = 64
SECONDS = 5.0
PIECES = (" the", " model", "(x", "):\n", "    return", " value", " of", "'s")
"""Texts of tokens."""


def detokenized() -> float:
    """Tokens per second of CPU time, detokenized as in the engine: in steps of 2 or 3, with a stop string."""
    tokenizer = Tokenizer(ZOO / "tiny")
    lines = [json.loads(line) for line in (ZOO / "prompts.jsonl").read_text().splitlines()]
    ids = [token for line in lines for token in tokenizer.encode(str(line["turns"][0]))]
    request = Request(
        request_id="",
        prompt_token_ids=[1],
        params=SamplingParams(stop="never said"),
        seed=0,
        eos_token_ids=(3071,),
        max_total_tokens=1 << 30,
    )
    num_tokens, begin = 0, time.process_time()
    while time.process_time() - begin < 3.0:
        text = OutputText(request, tokenizer.stream())
        for place in range(0, len(ids) - 3, 5):
            for step in (ids[place : place + 2], ids[place + 2 : place + 5]):
                for token in step:
                    text.push(token)
                text.take()
                num_tokens += len(step)
    return num_tokens / (time.process_time() - begin)


def speak(descriptor: int) -> None:
    """An engine that sends PIECES: 64 requests, `pace` deltas a second for each, `size` tokens per delta on average."""
    channel = Channel(socket.socket(fileno=descriptor))
    pace, size = float(os.environ["PACE"]), float(os.environ["SIZE"])
    running: dict[str, int] = {}
    most: dict[str, int] = {}
    is_begun = False
    due, num_turns = time.monotonic(), 0
    while True:
        if not running:
            channel.wait()
        try:
            messages = channel.receive()
        except EOFError:
            return
        answers = []
        for message in messages:
            if isinstance(message, Add):
                running[message.request.request_id] = 0
                most[message.request.request_id] = message.request.params.max_tokens or 1
                answers.append(Added(message.request.request_id))
            elif not is_begun:
                is_begun = True
                channel.send(
                    EngineInfo(
                        process_id=os.getpid(),
                        description=[],
                        vocab_size=3072,
                        max_model_len=1 << 20,
                        eos_token_ids=(3071,),
                        num_blocks=1 << 20,
                        is_exact=True,
                    )
                )
        deltas = []
        if len(running) == NUM_CALLERS:
            due = max(due + 1.0 / pace, time.monotonic() - 0.1)
            time.sleep(max(0.0, due - time.monotonic()))
            num_turns += 1
            count = int(num_turns * size) - int((num_turns - 1) * size)
            for place, request_id in enumerate(list(running)):
                said = PIECES[(place + num_turns) % len(PIECES)] * count
                running[request_id] += count
                is_over = running[request_id] >= most[request_id]
                deltas.append(_delta(request_id, said, count, is_over=is_over))
                if is_over:
                    del running[request_id]
        if answers or deltas:
            channel.send(Turn(answers, deltas, None))


def _delta(request_id: str, text: str, count: int, *, is_over: bool) -> OutputDelta:
    output = None
    if is_over:
        stats = SpeculationStats(max_drafts=3, num_accepted_tokens_per_pos=[0, 0, 0])
        completion = CompletionOutput(index=0, text="", token_ids=[], finish_reason="length")
        output = RequestOutput(
            request_id=request_id,
            prompt=None,
            prompt_token_ids=[1],
            outputs=[completion],
            seed=0,
            num_cached_tokens=0,
            num_preemptions=0,
            speculation=stats,
        )
    return OutputDelta(
        request_id=request_id,
        index=0,
        text=text,
        token_ids=[5] * count,
        is_draft=[True] * (count - 1) + [False],
        draft_counts=(1, 1, 3, 1, 0, 0),
        finish_reason="length" if is_over else None,
        output=output,
    )


async def call(port: int, num_tokens: int) -> None:
    """Callers: 64 streams, read to their ends; prints events and the time from the first to the last."""

    async def one() -> tuple[int, float, float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"prompt": "a", "max_tokens": num_tokens, "stream": True, "temperature": 0})
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        count, first, text = 0, 0.0, b""
        while b"data: [DONE]" not in text:
            text = text[-16:] + (data := await reader.read(1 << 16))
            assert data, "the stream ended too early"
            first = first or time.monotonic()
            count += data.count(b"data: {")
        writer.close()
        return count, first, time.monotonic()

    found = await asyncio.gather(*(one() for _ in range(NUM_CALLERS)))
    seconds = max(end for _, _, end in found) - min(first for _, first, _ in found)
    print(json.dumps({"events": sum(count for count, _, _ in found), "seconds": seconds}))


async def measure(pace: float, size: float) -> list[str]:
    """One run: a row of the table."""
    outrider.engine.client._PROGRAM = "import sys; from benchmarks.serving import speak; speak(int(sys.argv[1]))"
    os.environ |= {"PACE": str(pace), "SIZE": str(size)}
    config = engine_config(str(ZOO / "tiny"), speculative_config={"method": "ngram"}, max_num_seqs=NUM_CALLERS)
    front = Front(config, ServerOptions())
    await front.start()
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(build_app(front), log_level="warning", access_log=False, ws="none", lifespan="off")
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    num_tokens = int(pace * size * SECONDS)
    program = "import asyncio, sys; from benchmarks.serving import call; asyncio.run(call(*map(int, sys.argv[1:])))"
    arguments = ("-c", program, str(listener.getsockname()[1]), str(num_tokens))
    callers = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=subprocess.PIPE)
    begin = time.process_time()
    said, _ = await callers.communicate()
    spent = time.process_time() - begin
    server.should_exit = True
    await serving
    await front.stop()
    found = json.loads(said)
    total = num_tokens * NUM_CALLERS
    return [
        f"{size:g}",
        f"{pace * size * NUM_CALLERS:.0f}",
        f"{total / found['seconds']:.0f}",
        f"{found['events'] / found['seconds']:.0f}",
        f"{100 * spent / found['seconds']:.0f} %",
        f"{total / spent:.0f}",
    ]


def main() -> None:
    """Write both tables to results/serving.md."""
    text = Table("Text from ids, as the engine's process does it", ("tokens per second of CPU",))
    text.add(f"{detokenized():.0f}")
    columns = (
        "tokens a delta",
        "tokens/s said",
        "tokens/s read",
        "events/s read",
        "core in use",
        "tokens per second of CPU",
    )
    table = Table("From the engine's messages to 64 streams", columns)
    for pace, size in ((20.0, 1.0), (157.0, 1.0), (315.0, 1.0), (8.0, 2.5), (126.0, 2.5), (252.0, 2.5)):
        table.add(*asyncio.run(measure(pace, size)))
    cpu = next(line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    head = [
        "# What one core brings to the callers",
        "",
        f"{datetime.date.today():%Y-%m-%d}, {cpu}, Python {sys.version.split()[0]}, uvicorn {uvicorn.__version__}.",
        "Command: `PYTHONPATH=src python3 -m benchmarks.serving`",
        "",
        (__doc__ or "").split("\n\n")[1].replace("\n", " "),
        "",
    ]
    (RESULTS / "serving.md").write_text("\n".join([*head, *text.lines, "", *table.lines, ""]))


if __name__ == "__main__":
    main()
