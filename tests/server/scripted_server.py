"""A server that sends what a test wrote down: it shows the page at / failures that a sound engine does not produce.

Knows the form of the API that the page reads; no model, no engine.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "src" / "outrider" / "server" / "page"
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"

TEXT = '''        """Return the top item of the stack."""
        if not self._items:
            raise IndexError("the stack is empty")
        return self._items.pop()

    def __len__(self):
        """Return the number of items."""
        return len(self._items)
'''


@dataclass(frozen=True)
class Token:
    """One token of a stream."""

    id: int
    text: str


def tokens_of(text: str) -> list[Token]:
    """Pieces of a few characters, with ids that tell equal pieces apart from others."""
    pieces: list[str] = []
    for char in text:
        if pieces and (char == " ") == pieces[-1].isspace() and char != "\n" and len(pieces[-1]) < 5:
            pieces[-1] += char
        else:
            pieces.append(char)
    return [Token(sum(map(ord, piece)) % 3000, piece) for piece in pieces]


@dataclass
class Script:
    """Behaviour of the server."""

    plain: list[Token] = field(default_factory=lambda: tokens_of(TEXT))
    drafted: list[Token] | None = None
    """Tokens where drafts were asked for; None: those of `plain`."""
    digests: tuple[str, str] | None = None
    """Logits digests of the streams without and with drafts; None: the server sends none."""
    num_drafts: int = 3
    """Drafts per step of the model; 0: it has no drafter."""
    pause: float = 0.0
    """Seconds between two steps."""
    holds_after: int | None = None
    """Steps after which every stream waits for `goes_on`; for `answer`: waits before it."""
    goes_on: threading.Event = field(default_factory=threading.Event)
    """Set by a test when it has seen what it held the streams for; at the end of the test in any case."""
    api_key: str | None = None
    refusal: tuple[int, dict[str, str], dict[str, Any]] | None = None
    """Status, headers and error of every completion."""
    breaks_after: int | None = None
    """Steps after which a stream breaks off."""
    error: dict[str, Any] | None = None
    """Told before the stream breaks off."""
    seen: list[dict[str, Any]] = field(default_factory=list)
    """Bodies that were asked."""
    tasks: tuple[str, ...] = ("generate",)
    """Tasks of the model; a pooling model's page is another one."""
    answer: Callable[[str, dict[str, Any]], dict[str, Any]] | None = None
    """Answers a pooling model's requests: path and body to the JSON."""


def steps_of(tokens: list[Token], num_drafts: int) -> Iterator[tuple[list[Token], int]]:
    """(tokens, number of drafts tried) of each step; the first comes from the prompt and has none."""
    dice = random.Random(5)
    place = 0
    while place < len(tokens):
        tried = min(num_drafts, len(tokens) - place - 1) if place else 0
        accepted = 0
        while accepted < tried and dice.random() < 0.75:
            accepted += 1
        yield tokens[place : place + accepted + 1], tried
        place += accepted + 1


def chunks_of(script: Script, body: dict[str, Any], is_chat: bool) -> Iterator[dict[str, Any]]:
    """The chunks of one stream, as the real server forms them."""
    num_drafts = body["num_speculative_tokens"]
    tokens = script.drafted if num_drafts and script.drafted is not None else script.plain
    tokens = tokens[: body["max_tokens"]]
    per_pos = [0] * num_drafts
    stats = {"num_steps": 0, "num_drafts": 0, "num_draft_tokens": 0, "num_accepted_tokens": 0}
    num_told = 0
    for new, tried in steps_of(tokens, num_drafts):
        accepted = len(new) - 1
        num_told += len(new)
        stats["num_steps"] += 1
        stats["num_drafts"] += tried > 0
        stats["num_draft_tokens"] += tried
        stats["num_accepted_tokens"] += accepted
        for position in range(accepted):
            per_pos[position] += 1
        length = 1 + stats["num_accepted_tokens"] / stats["num_drafts"] if stats["num_drafts"] else 1.0
        text = "".join(token.text for token in new)
        choice: dict[str, Any] = {
            "index": 0,
            "token_ids": [token.id for token in new],
            "token_texts": [token.text for token in new],
            "origins": ["draft"] * accepted + ["target"],
            "finish_reason": None if num_told < len(tokens) else "length",
        }
        if script.digests is not None and num_told == len(tokens):
            choice["logits_digest"] = script.digests[num_drafts > 0]
        choice |= {"delta": {"content": text}} if is_chat else {"text": text}
        speculation = {**stats, "num_accepted_tokens_per_pos": list(per_pos), "mean_acceptance_length": length}
        yield {"choices": [choice], "usage": {"completion_tokens": num_told, "speculation": speculation}}


class Handler(BaseHTTPRequestHandler):
    """Page files, the model, and streams of the script."""

    script: Script

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            if self._is_stranger():
                return
            k = self.script.num_drafts
            speculative = {"method": "eagle3", "num_speculative_tokens": k} if k else None
            model = {"id": "tiny", "object": "model", "max_model_len": 2048, "speculative_config": speculative}
            model["tasks"] = self.script.tasks
            self._send(200, json.dumps({"object": "list", "data": [model]}).encode(), "application/json")
            return
        front = "index.html" if "generate" in self.script.tasks else "similarity.html"
        name = front if self.path == "/" else self.path.removeprefix("/page/")
        path = PAGE / name
        if "/" in name or not path.is_file():
            self._refuse(404, {}, {"message": f"{self.path} is not here."})
        else:
            self._send(200, path.read_bytes(), KINDS[path.suffix])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.script.seen.append(body)
        if self._is_stranger():
            return
        if self.script.refusal is not None:
            self._refuse(*self.script.refusal)
            return
        if self.script.answer is not None:
            if self.script.holds_after is not None:
                self.script.goes_on.wait()
            self._send(200, json.dumps(self.script.answer(self.path, body)).encode(), "application/json")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for count, chunk in enumerate(chunks_of(self.script, body, "chat" in self.path)):
            if count == self.script.breaks_after:
                if self.script.error is not None:
                    self._event({"error": self.script.error})
                return
            if count == self.script.holds_after:
                self.script.goes_on.wait()
            time.sleep(self.script.pause)
            self._event(chunk)
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, data: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
        self.wfile.flush()

    def _is_stranger(self) -> bool:
        key = self.script.api_key
        if key is None or self.headers["Authorization"] == f"Bearer {key}":
            return False
        self._refuse(401, {}, {"message": "The API key is missing or wrong."})
        return True

    def _refuse(self, status: int, headers: dict[str, str], error: dict[str, Any]) -> None:
        self._send(status, json.dumps({"error": error}).encode(), "application/json", headers)

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Security-Policy": POLICY, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that stops listening is not an error."""


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """The address of a server of `script`."""
    server = _Server(("127.0.0.1", 0), type("ScriptHandler", (Handler,), {"script": script}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        script.goes_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
