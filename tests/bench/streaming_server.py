"""A server that streams completions in the dialect of vLLM, SGLang or Outrider. Standard library only.

What it answers is a function of the request. It notes every request, how many ran at once, and what it counted.
"""

import json
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.fake_server import MODEL, Counters, K, page


class StreamingServer:
    """`fault`: refuse, broken, error chunk, no usage, no json, html, no metrics, restart, or none."""

    def __init__(self, kind: str = "outrider", *, fault: str = "", step_seconds: float = 0.002) -> None:
        self.kind, self.fault, self.step_seconds = kind, fault, step_seconds
        self.counters = Counters()
        self.seen: list[tuple[str, dict, dict]] = []
        self.running = self.most_running = 0
        self.lock = threading.Lock()

    def steps(self, body: dict) -> list[int]:
        """Tokens of each step of an answer: one for the prompt, then accepted drafts and one more."""
        seed, left, steps = zlib.crc32(json.dumps(body, sort_keys=True).encode()), body["max_tokens"] - 1, [1]
        while left > 0:
            seed = (seed * 1103515245 + 12345) % 2**31
            steps.append(min(1 + (seed >> 8) % (K + 1), left))
            left -= steps[-1]
        return steps

    def count(self, steps: list[int]) -> None:
        with self.lock:
            self.counters.tokens += sum(steps)
            self.counters.finished += 1
            self.counters.drafts += len(steps) - 1
            for taken in steps[1:]:
                for position in range(taken - 1):
                    self.counters.per_pos[position] += 1

    def chunks(self, path: str, body: dict) -> Iterator[str]:
        """The lines of a stream."""
        steps, is_chat = self.steps(body), path.endswith("chat/completions")
        if is_chat:
            yield sse({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        yield ": a comment, as some servers send to keep a connection\n\n"
        for number, taken in enumerate(steps):
            time.sleep(self.step_seconds)
            if self.fault == "broken" and number == 1:
                return
            if self.fault == "error chunk" and number == 1:
                yield sse({"error": {"message": "the engine died", "code": 500}})
                return
            if self.fault == "html":
                yield "data: <html>\n\n"
            text = "wörd " * taken
            yield sse({"choices": [{"delta": {"content": text}} if is_chat else {"text": text}]})
        if self.fault != "no usage":
            prompt = body.get("prompt", "")
            count = len(prompt) if isinstance(prompt, list) else 9
            yield sse({"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": sum(steps)}})
        self.count(steps)
        yield "data: [DONE]\n\n"


def sse(chunk: dict) -> str:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\r\n\r\n"


@contextmanager
def serving(fake: StreamingServer) -> Iterator[str]:
    """The address of `fake` while it serves."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self.answer(200, json.dumps({"data": [{"id": MODEL}]}))
            elif self.path == "/metrics" and fake.fault != "no metrics":
                if fake.fault == "restart" and fake.counters.finished > 1:
                    fake.counters = Counters()
                self.answer(200, page(fake.kind, fake.counters))
            else:
                self.answer(404, "no such page")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with fake.lock:
                fake.seen.append((self.path, body, dict(self.headers)))
                number = len(fake.seen)
                fake.running += 1
                fake.most_running = max(fake.most_running, fake.running)
            if fake.fault == "refuse" and number % 2:
                self.answer(429, '{"error": "too many"}')
            else:
                self.send_response(200)
                self.end_headers()
                for chunk in fake.chunks(self.path, body):
                    data = chunk.encode()
                    self.wfile.write(data[:7])  # a character or a line may be cut anywhere
                    self.wfile.flush()
                    self.wfile.write(data[7:])
            with fake.lock:
                fake.running -= 1

        def log_message(self, *args: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
