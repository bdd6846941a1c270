"""One request to an OpenAI-compatible server as a stream, with the time of everything that came back.

Knows HTTP and server-sent events; judges nothing. A request that fails is an answer with an error.
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
    """Server-sent events out of the bytes of a response, whatever pieces they come in."""

    def __init__(self) -> None:
        self._rest = b""

    def push(self, data: bytes) -> Iterator[str]:
        """The data of every line that is whole by now; comments and other fields are left out."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip().decode()


class Client:
    """A server's address. Use it as `async with`."""

    def __init__(self, base_url: str, *, headers: Mapping[str, str]) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"--base-url {base_url!r} is no address. Example: http://localhost:8000.")
        self.url = base_url.rstrip("/").removesuffix("/v1")
        self._headers = dict(headers)

    async def __aenter__(self) -> "Client":
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, headers=self._headers)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def page(self, path: str) -> str:
        """A page of the server's; raises ConfigError where there is none."""
        try:
            async with self._session.get(self.url + path) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConfigError(f"{self.url}{path} cannot be reached: {error}. Is the server up?") from error
        if response.status != 200:
            raise ConfigError(f"{self.url}{path}: status {response.status}: {text[:200]}")
        return text

    async def first_model(self) -> str:
        """The name under which the server serves its first model."""
        text = await self.page("/v1/models")
        try:
            return str(json.loads(text)["data"][0]["id"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ConfigError(f"{self.url}/v1/models names no model: {text[:200]!r}. Give --model.") from error

    async def ask(self, endpoint: str, body: Mapping[str, Any]) -> Answer:
        """Send one request and read its stream to the end."""
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
    """Note every piece of a stream; what is no stream of an OpenAI server is an error of this answer."""
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
                answer.error = f"no chunk of an OpenAI stream ({error!r}): {event[:200]}"
                return
            if text:
                pieces.append(text)
                answer.deliveries.append(now)
    answer.text = "".join(pieces)
    if not has_ended:
        answer.error = "the stream broke off before [DONE]"
    elif not has_usage:
        answer.error = "the stream has no usage, so its tokens are not known"


def _text(chunk: Mapping[str, Any]) -> str:
    """What a chunk adds to the output: of a completion, of a chat message, of its reasoning or of its tool calls."""
    text = ""
    for choice in chunk.get("choices") or ():
        if "delta" in choice:
            delta = choice["delta"]
            calls = "".join(json.dumps(call) for call in delta.get("tool_calls") or ())
            text += (delta.get("content") or "") + (delta.get("reasoning_content") or "") + calls
        else:
            text += choice.get("text") or ""
    return text
