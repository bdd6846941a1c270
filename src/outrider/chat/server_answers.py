"""Answers of an OpenAI-compatible server. Outrider's also reports the origin of tokens and counts of drafts."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from typing import Any

from outrider.chat.answer import Message, Settings, Update
from outrider.core.errors import ConfigError, RequestError
from outrider.core.outputs import SpeculationStats

_SECONDS = 600.0
"""Seconds that the server may be silent."""


class ServerAnswers:
    """A model of a server."""

    def __init__(self, url: str, model: str | None, *, api_key: str | None) -> None:
        """`model`: None takes the first that the server lists. Raises ConfigError if there is no such server."""
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"--url {url!r} is not an address. Example: http://127.0.0.1:8000.")
        base = url.rstrip("/")
        self._base = base if base.endswith("/v1") else base + "/v1"
        self._headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        with self._open("/models", None) as response:
            listed = self._parsed(response.read()).get("data") or []
        names = [entry.get("id") for entry in listed]
        if model is not None and model not in names:
            raise ConfigError(f"{base} does not serve {model!r}. It serves {', '.join(map(str, names)) or 'nothing'}.")
        if not names:
            raise ConfigError(f"{base} serves no model.")
        self._model = model or str(names[0])
        entry = listed[names.index(self._model)]
        self._is_outrider = entry.get("owned_by") == "outrider"
        drafter = entry.get("speculative_config") or {}
        self.has_drafter = bool(drafter)
        self.description = f"{self._model} on {base}" + (f"; drafter: {drafter['method']}" if drafter else "")

    def answer(self, messages: Sequence[Message], settings: Settings) -> Generator[Update, None, None]:
        """The answer as the server sends it. Raises RequestError with the server's words if it refuses."""
        body: dict[str, Any] = {"model": self._model, "messages": list(messages), "stream": True, "seed": settings.seed}
        body["stream_options"] = {"include_usage": True}
        if settings.temperature is not None:
            body["temperature"] = settings.temperature
        if settings.max_tokens is not None:
            body["max_tokens"] = settings.max_tokens
        if self._is_outrider:
            body["stream_options"]["continuous_usage_stats"] = True
            body |= {"return_token_ids": True, "return_token_origins": True}
            if not settings.has_drafts:
                body["num_speculative_tokens"] = 0
        with self._open("/chat/completions", body) as response:
            try:
                for line in response:
                    if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                        yield self._update(self._parsed(line[5:]))
            except (OSError, http.client.HTTPException) as error:
                raise RequestError(f"{self._base} ended the answer: {error}. Ask again.") from error

    def _update(self, event: dict[str, Any]) -> Update:
        if "error" in event:
            raise RequestError(f"{self._base} ended the answer: {event['error']}")
        (choice,) = event.get("choices") or [{}]
        usage = event.get("usage") or {}
        counts = usage.get("speculation")
        stats = None
        if counts is not None:
            stats = SpeculationStats(
                num_steps=counts["num_steps"],
                num_drafts=counts["num_drafts"],
                num_draft_tokens=counts["num_draft_tokens"],
                num_accepted_tokens=counts["num_accepted_tokens"],
                num_accepted_tokens_per_pos=counts["num_accepted_tokens_per_pos"],
            )
        delta = choice.get("delta") or {}
        pieces: list[tuple[str, bool | None]]
        if choice.get("token_texts"):
            origins = (origin == "draft" for origin in choice["origins"])
            pieces = list(zip(choice["token_texts"], origins, strict=True))
        else:
            pieces = [(delta.get("reasoning_content") or delta.get("reasoning") or "", None)]
            pieces.append((delta.get("content") or "", None))
        return Update(
            pieces=[piece for piece in pieces if piece[0]],
            token_ids=choice.get("token_ids") or (),
            stats=stats,
            num_tokens=usage.get("completion_tokens"),
        )

    def _open(self, path: str, body: dict[str, Any] | None) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, self._headers)
        try:
            response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_SECONDS)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            try:
                said = json.loads(said)["error"]["message"]
            except (ValueError, LookupError, TypeError):
                said = said[:200]
            raise RequestError(f"{self._base}{path} refuses with status {error.code}: {said}") from error
        except (OSError, http.client.HTTPException) as error:
            raise ConfigError(f"{self._base} cannot be reached: {error}. Check that the server runs.") from error
        return response

    def _parsed(self, text: bytes) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except ValueError as error:
            raise RequestError(f"{self._base} does not answer as an OpenAI server: {text[:80]!r}.") from error
        if not isinstance(value, dict):
            raise RequestError(f"{self._base} does not answer as an OpenAI server: {text[:80]!r}.")
        return value
