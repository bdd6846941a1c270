"""A server with an OpenAI API and a /metrics page, in the dialect of vLLM, SGLang or Outrider. Standard library only.

What it answers and counts is fixed by a hash of the request, so that two runs agree. Faults are switched on by name.
"""

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "served"
K = 3


class Counters:
    """Counters of the server."""

    def __init__(self) -> None:
        self.tokens = self.finished = self.drafts = 0
        self.per_pos = [0] * K
        self.running = 0

    def serve(self, body: dict, *, luck: int) -> tuple[str, int]:
        """Count one request: steps of 1 to 4 tokens, chosen by a hash; about `luck` of 100 drafts are right."""
        seed = zlib.crc32(json.dumps(body, sort_keys=True).encode())
        left = body["max_tokens"] - 1
        self.tokens += 1
        while left > 0:
            seed = (seed * 1103515245 + 12345) % 2**31
            accepted = 0
            while accepted < K and (seed >> (6 * accepted + 4)) % 100 < luck and accepted < left - 1:
                accepted += 1
            for position in range(accepted):
                self.per_pos[position] += 1
            self.drafts += 1
            self.tokens += accepted + 1
            left -= accepted + 1
        self.finished += 1
        return f"answer {seed}", body["max_tokens"]


def page(kind: str, counters: Counters) -> str:
    """A /metrics page in the dialect of `kind`."""
    c = counters
    if kind == "sglang":
        values = {"num_running_reqs": c.running, "num_queue_reqs": 0, "generation_tokens_total": c.tokens,
                  "num_requests_total": c.finished, "spec_verify_calls_total": c.drafts}  # fmt: skip
        lines = [f'sglang:{name}{{model_name="{MODEL}",tp_rank="0"}} {value}' for name, value in values.items()]
        return "\n".join(lines) + "\n"
    values = {
        "num_requests_running": c.running,
        "num_requests_waiting": 0,
        "generation_tokens_total": c.tokens,
        'request_success_total{finished_reason="length"': c.finished,
        "spec_decode_num_drafts_total": c.drafts,
        "spec_decode_num_draft_tokens_total": K * c.drafts,
        "spec_decode_num_accepted_tokens_total": sum(c.per_pos),
        **{f'spec_decode_num_accepted_tokens_per_pos_total{{position="{i}"': n for i, n in enumerate(c.per_pos)},
    }
    lines = []
    for name, value in values.items():
        labels = "," if "{" in name else "{"
        lines.append(f'{kind}:{name}{labels}model_name="{MODEL}",engine="0"}} {float(value)}')
    return "# TYPE x counter\n" + "\n".join(lines) + "\n"


class FakeServer:
    """A server in this process. `fault`: busy, traffic, restart, lag, stuck, no usage, no counters, or none."""

    def __init__(self, kind: str, *, fault: str = "", luck: int = 70) -> None:
        self.kind, self.fault, self.luck = kind, fault, luck
        self.counters, self.seen = Counters(), []
        self.lagging = 0
        self.stale = page(kind, self.counters)

    def metrics(self) -> str:
        if self.fault == "no counters":
            return f'{self.kind}:num_requests_running{{model_name="{MODEL}"}} 0\n'
        if self.fault == "busy":
            self.counters.running = 2
        if self.lagging:
            self.lagging -= 1
            return self.stale
        return page(self.kind, self.counters)

    def complete(self, path: str, body: dict) -> dict:
        self.seen.append((path, body))
        self.stale = page(self.kind, self.counters)
        text, tokens = self.counters.serve(body, luck=self.luck)
        if self.fault == "traffic" and len(self.seen) == 2:
            self.counters.serve({"max_tokens": 5}, luck=self.luck)
        if self.fault == "restart" and len(self.seen) == 2:
            self.counters = Counters()
        if self.fault == "lag":
            self.lagging = 3
        if self.fault == "stuck":
            self.counters.running = 1
        key = {"message": {"content": text}} if path.endswith("chat/completions") else {"text": text}
        usage = {} if self.fault == "no usage" else {"completion_tokens": tokens}
        return {"choices": [key], "usage": usage}


@contextmanager
def serving(fake: FakeServer) -> Iterator[str]:
    """The address of `fake` while it serves."""

    class Handler(BaseHTTPRequestHandler):
        def _send(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._send(200, fake.metrics())
            elif self.path == "/version" and fake.kind != "sglang":
                self._send(200, '{"version": "0.26.0"}')
            else:
                self._send(404, "no such page")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if body["model"] != MODEL:
                self._send(404, '{"error": "no such model"}')
            else:
                self._send(200, json.dumps(fake.complete(self.path, body)))

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
