"""Many streaming callers at once, each of which records everything that it received."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

TIMEOUT = aiohttp.ClientTimeout(total=600)


@dataclass(slots=True)
class StreamRecord:
    """Everything that one caller received."""

    status: int = 0
    retry_after: str | None = None
    body: str = ""
    """The body of an answer that is not a stream."""
    text: dict[int, str] = field(default_factory=dict)
    token_ids: dict[int, list[int]] = field(default_factory=dict)
    finish_reasons: dict[int, str] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    num_chunks: int = 0
    is_done: bool = False
    """The stream ended with [DONE]."""
    broke_off: str | None = None
    """Why the connection ended before that."""

    def hear(self, event: str) -> None:
        """Another event of the stream."""
        if event == "[DONE]":
            self.is_done = True
            return
        chunk = json.loads(event)
        if "error" in chunk:
            self.error = chunk["error"]
            return
        self.num_chunks += 1
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk["choices"]:
            index = choice["index"]
            self.text[index] = self.text.get(index, "") + choice["text"]
            self.token_ids.setdefault(index, []).extend(choice.get("token_ids") or [])
            if choice["finish_reason"] is not None:
                assert index not in self.finish_reasons, "a completion ended twice"
                self.finish_reasons[index] = choice["finish_reason"]

    def outcome(self) -> tuple[Any, ...]:
        """The fields that may depend on the request only."""
        return self.text, self.token_ids, self.finish_reasons


def body_of(**fields: Any) -> dict[str, Any]:
    """A completion of 8 tokens, streamed unless asked for in one piece."""
    defaults: dict[str, Any] = {
        "prompt": "def f(x):", "max_tokens": 8, "temperature": 0.8, "seed": 1, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True}, "return_token_ids": True,
    }  # fmt: skip
    if not fields.get("stream", True):
        del defaults["stream_options"]
    return defaults | fields


async def call(
    session: aiohttp.ClientSession,
    url: str,
    body: dict[str, Any],
    *,
    leaves_after: int = 0,
    pause: float = 0.0,
    told: StreamRecord | None = None,
) -> StreamRecord:
    """One caller; `leaves_after`: closes the connection after this number of events (0: stays to the end). `pause`:
    seconds between two reads. `told`: where to note what it hears."""
    told = told or StreamRecord()
    try:
        async with session.post(url + "/v1/completions", json=body) as response:
            told.status, told.retry_after = response.status, response.headers.get("Retry-After")
            if response.status != 200 or not body.get("stream"):
                told.body = await response.text()
                return told
            rest = b""
            async for data in response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.startswith(b"data: "):
                        told.hear(line[6:].decode())
                if 0 < leaves_after <= told.num_chunks:
                    response.close()
                    return told
                if pause:
                    await asyncio.sleep(pause)
    except (aiohttp.ClientError, TimeoutError) as error:
        told.broke_off = repr(error)
    return told


async def _all(url: str, bodies: Sequence[dict[str, Any]], leaves_after: Sequence[int]) -> list[StreamRecord]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as session:
        calls = [call(session, url, body, leaves_after=count) for body, count in zip(bodies, leaves_after, strict=True)]
        return list(await asyncio.gather(*calls))


def all_at_once(
    url: str, bodies: Sequence[dict[str, Any]], *, leaves_after: Sequence[int] | None = None
) -> list[StreamRecord]:
    """Every body from a caller of its own, at the same time."""
    return asyncio.run(_all(url, bodies, leaves_after or [0] * len(bodies)))
