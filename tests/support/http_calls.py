"""HTTP calls to a server under test with the standard library only, one or many at once."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.support.server_under_test import ServerUnderTest


def post(server: ServerUnderTest, path: str, body: Any, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """Status, body (JSON as objects, else text) and headers; `body` may be bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = Request(server.url + path, data, {"Content-Type": "application/json"} | headers)
    return _answer(request)


def get(server: ServerUnderTest, path: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers of a GET."""
    return _answer(Request(server.url + path, headers=headers))


def post_all(
    server: ServerUnderTest, path: str, bodies: Sequence[Any], **headers: str
) -> list[tuple[int, Any, dict[str, str]]]:
    """All at the same time; answers in the order of the bodies."""
    with ThreadPoolExecutor(len(bodies)) as threads:
        return list(threads.map(lambda body: post(server, path, body, **headers), bodies))


def events(text: str) -> list[Any]:
    """The events of a stream as objects; the last must be [DONE], which is left out."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]", lines[-1]
    return [json.loads(line) for line in lines[:-1]]


def _answer(request: Request) -> tuple[int, Any, dict[str, str]]:
    try:
        with urlopen(request, timeout=120) as response:
            status, data, headers = response.status, response.read(), dict(response.headers)
    except HTTPError as error:
        with error:
            status, data, headers = error.code, error.read(), dict(error.headers)
    headers = {name.lower(): value for name, value in headers.items()}
    is_json = headers.get("content-type", "").startswith("application/json")
    return status, json.loads(data) if is_json else data.decode(), headers
