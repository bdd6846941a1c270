"""Gates a running server over HTTP: prompts one at a time through the OpenAI API, counters read between them.

One prompt at a time gives counts per prompt, so that intervals can be clustered as everywhere else; and it shows
other traffic: between two readings exactly one request may end, and exactly its tokens may be generated.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from outrider.gate.errors import GateError
from outrider.gate.metrics_page import Reading, read_page
from outrider.gate.prompts import Prompt, digest
from outrider.gate.sample import Measurement, Sample

SETTLE_SECONDS = 10.0
"""Seconds that counters may lag behind an answer."""
_POLL_SECONDS = 0.05
_REQUEST_SECONDS = 600.0


class Server:
    """Client of a server's API and counters."""

    def __init__(self, url: str, model: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise GateError(f"--endpoint {url!r} is not an address. Example: http://localhost:8000.")
        self.url = url.rstrip("/").removesuffix("/v1")
        self.model = model

    def reading(self) -> Reading:
        return read_page(self._get("/metrics"), model=self.model)

    def version(self) -> str:
        """The version from /version; "unknown" if there is no such endpoint (SGLang)."""
        try:
            return str(json.loads(self._get("/version")).get("version", "unknown"))
        except (GateError, ValueError, AttributeError):
            return "unknown"

    def complete(self, prompt: Prompt, history: Sequence[dict[str, Any]], **params: Any) -> tuple[str, int]:
        """Sends one request; returns its text and number of output tokens."""
        body: dict[str, Any] = {"model": self.model, **params}
        if prompt.is_chat:
            answer = self._post("/v1/chat/completions", {**body, "messages": list(history)})
        else:
            text = "".join(message["content"] for message in history)
            answer = self._post("/v1/completions", {**body, "prompt": text})
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] if prompt.is_chat else choice["text"]
            return text or "", int(answer["usage"]["completion_tokens"])
        except (KeyError, IndexError, TypeError) as error:
            raise GateError(
                f"{self.url}: the answer is not an OpenAI completion with usage: {answer!r:.200}."
            ) from error

    def _get(self, path: str) -> str:
        return self._open(urllib.request.Request(self.url + path))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            return json.loads(self._open(request))
        except json.JSONDecodeError as error:
            raise GateError(f"{self.url}{path}: the answer is not JSON: {error}.") from error

    def _open(self, request: urllib.request.Request) -> str:
        try:
            with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as response:
                text: str = response.read().decode()
                return text
        except urllib.error.HTTPError as error:
            raise GateError(f"{request.full_url}: status {error.code}: {error.read().decode()[:200]}.") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise GateError(f"{request.full_url} cannot be reached: {error}. Is the server up?") from error


def measure_endpoint(
    server: Server,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    all_turns: bool = False,
    num_drafts: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Measurement:
    """Returns one sample per request, like `measure` for an engine. Raises GateError if it sees other traffic.

    `num_drafts`: k, if the server's counters do not include it. `advance` is called after every request.
    """
    before = server.reading()
    if not before.is_idle:
        raise GateError(
            f"{server.url} is busy: {before.running} requests running, {before.waiting} waiting. Other traffic would "
            "be counted. Wait until it is idle, or start a server for the gate."
        )
    samples: list[Sample] = []
    for index, prompt in enumerate(prompts):
        history: list[dict[str, Any]] = []
        for turn, said in enumerate(prompt.turns if all_turns else prompt.turns[:1], start=1):
            history.append({"role": "user", "content": said})
            params = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed + index}
            asked = digest(json.dumps([prompt.is_chat, history]))
            text, num_tokens = server.complete(prompt, history, **params)
            after = _settled(server, before, num_tokens, prompt=prompt.prompt_id)
            samples.append(
                _sample(before, after, prompt, turn=turn, seed=seed + index, asked=asked, text=text, tokens=num_tokens)
            )
            history.append({"role": "assistant", "content": text})
            before = after
            advance()
    known = max(len(sample.num_accepted_tokens_per_pos) for sample in samples) or num_drafts
    if known is None:
        raise GateError(
            f"the counters of {before.kind} do not include the number of drafts per step. Set it: "
            "--speculative-config '{\"num_speculative_tokens\": 3}'."
        )
    version = server.version()
    return Measurement(
        samples=tuple(samples),
        key={"endpoint": before.kind, "model": server.model, "version": version},
        versions={before.kind: version},
        num_drafts=known,
    )


def _settled(server: Server, before: Reading, num_tokens: int, *, prompt: str) -> Reading:
    """Waits until the counters include this request: two equal readings in a row, nothing running."""
    deadline = time.monotonic() + SETTLE_SECONDS
    last = server.reading()
    while True:
        now = server.reading()
        if any(new < old for new, old in zip(now.counters(), before.counters(), strict=False)):
            raise GateError(
                f"{server.url}: a counter fell during prompt {prompt}: the server was restarted. Run again."
            )
        ended, generated = now.finished - before.finished, now.generation_tokens - before.generation_tokens
        if ended > 1 or generated > num_tokens:
            raise GateError(
                f"{server.url}: during prompt {prompt} {ended} requests ended and {generated} tokens were generated, "
                f"of which 1 and {num_tokens} are ours: other traffic interferes. Gate a server that has none."
            )
        if now == last and now.is_idle and ended == 1 and generated == num_tokens:
            return now
        if time.monotonic() > deadline:
            raise GateError(
                f"{server.url}: {SETTLE_SECONDS:g} s after prompt {prompt} the counters show {ended} of 1 requests and "
                f"{generated} of {num_tokens} tokens, with {now.running} requests running: they do not settle, or "
                "other traffic interferes."
            )
        last = now
        time.sleep(_POLL_SECONDS)


def _sample(
    before: Reading,
    after: Reading,
    prompt: Prompt,
    *,
    turn: int,
    seed: int,
    asked: str,
    text: str,
    tokens: int,
) -> Sample:
    """Subtracts two readings. If accepted tokens are not counted, they follow from the others: each verify call
    gave one token of its own and the prompt's step one, so accepted = tokens − 1 − calls."""
    drafts = after.drafts - before.drafts
    if after.accepted is not None and before.accepted is not None:
        accepted = after.accepted - before.accepted
    else:
        accepted = max(tokens - 1 - drafts, 0)
    width = len(after.accepted_per_pos)
    old = (*before.accepted_per_pos, *[0] * width)[:width]
    per_pos = tuple(new - was for new, was in zip(after.accepted_per_pos, old, strict=True))
    if per_pos and sum(per_pos) != accepted:
        raise GateError(
            f"prompt {prompt.prompt_id}: {accepted} tokens were accepted, by position {per_pos}. Run again."
        )
    return Sample(
        prompt=prompt.prompt_id,
        turn=turn,
        category=prompt.category,
        seed=seed,
        prompt_digest=asked,
        num_tokens=tokens,
        num_steps=0,
        num_drafts=drafts,
        num_draft_tokens=(after.draft_tokens or 0) - (before.draft_tokens or 0),
        num_accepted_tokens=accepted,
        num_accepted_tokens_per_pos=per_pos,
        text_digest=digest(text),
    )
