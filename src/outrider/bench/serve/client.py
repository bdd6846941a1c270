"""Sends requests to an OpenAI-compatible server and times every piece of the streamed answers.

Knows HTTP and server-sent events. A request that fails is an answer with an error.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp

from outrider.bench.serve.answer import Answer
from outrider.core.errors import ConfigError

_TIMEOUT = aiohttp.ClientTimeout(total=6 * 3600, sock_connect=60)


class Events:
    """Parses server-sent events from the bytes of a response, however they are split."""

    def __init__(self) -> None:
        self._rest = b""

    def push(self, data: bytes) -> Iterator[str]:
        """Adds bytes; yields the data of every complete line, without comments and other fields."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip().decode()


class Client:
    """A client of one server. Use it as `async with`."""

    def __init__(self, base_url: str, *, headers: Mapping[str, str]) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"--base-url {base_url!r} is not an http:// or https:// address. Example: http://localhost:8000."
            )
        self.url = base_url.rstrip("/").removesuffix("/v1")
        self._headers = dict(headers)

    async def __aenter__(self) -> "Client":
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, headers=self._headers)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def page(self, path: str) -> str:
        """The text of a page. Raises ConfigError if the server does not answer with status 200."""
        try:
            async with self._session.get(self.url + path) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConfigError(f"{self.url}{path} cannot be reached: {error}. Check that the server runs.") from error
        if response.status != 200:
            raise ConfigError(
                f"{self.url}{path} answered with status {response.status}: {text[:200]}. Check --base-url and --header."
            )
        return text

    async def first_model(self) -> str:
        """The name of the first model that the server lists. Raises ConfigError."""
        text = await self.page("/v1/models")
        try:
            return str(json.loads(text)["data"][0]["id"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ConfigError(f"{self.url}/v1/models lists no model: {text[:200]!r}. Give --model.") from error

    async def is_healthy(self) -> bool:
        """True if a server is there and says that it serves."""
        try:
            async with self._session.get(self.url + "/health") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def ask(self, endpoint: str, body: Mapping[str, Any], *, answer: Answer | None = None) -> Answer:
        """Sends one request and reads its stream to the end. `answer` is filled while the stream comes, for callers
        that watch it; None makes a new one.
        """
        if answer is None:
            answer = Answer(sent=time.perf_counter())
        try:
            async with self._session.post(self.url + endpoint, json=body) as response:
                if response.status != 200:
                    answer.error = f"status {response.status}: {(await response.text())[:200]}"
                else:
                    await _read(response, answer)
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as error:
            answer.error = f"{type(error).__name__}: {error}"
        answer.ended = time.perf_counter()
        return answer


async def _read(response: aiohttp.ClientResponse, answer: Answer) -> None:
    """Notes every piece of a stream; anything but an OpenAI stream becomes the error of this answer."""
    events, pieces = Events(), []
    has_usage = has_ended = False
    async for data in response.content.iter_any():
        now = time.perf_counter()
        for event in events.push(data):
            if event == "[DONE]":
                has_ended = True
                continue
            try:
                chunk = json.loads(event)
                if "error" in chunk:
                    answer.error = f"error in the stream: {json.dumps(chunk['error'])[:200]}"
                    return
                text = _text(chunk)
                if usage := chunk.get("usage"):
                    has_usage = True
                    answer.num_prompt_tokens = usage["prompt_tokens"]
                    answer.num_output_tokens = usage["completion_tokens"]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                answer.error = f"not a chunk of an OpenAI stream ({error!r}): {event[:200]}"
                return
            if text:
                pieces.append(text)
                answer.deliveries.append(now)
    answer.text = "".join(pieces)
    if not has_ended:
        answer.error = "the stream ended before [DONE]"
    elif not has_usage:
        answer.error = "the stream has no usage, so its number of tokens is unknown"


def _text(chunk: Mapping[str, Any]) -> str:
    """The text that a chunk adds to a completion or to a chat message, reasoning and tool calls included."""
    text = ""
    for choice in chunk.get("choices") or ():
        if "delta" in choice:
            delta = choice["delta"]
            calls = "".join(json.dumps(call) for call in delta.get("tool_calls") or ())
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""  # two names of the same text
            text += (delta.get("content") or "") + reasoning + calls
        else:
            text += choice.get("text") or ""
    return text
