"""Requests of web pages of other origins and of other names of the server, keys, and headers of every response.

A small application has the server's middleware, in its order; no engine.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from outrider.core.errors import ConfigError
from outrider.server.api_keys import api_keys
from outrider.server.guards import ApiKeys
from outrider.server.options import ServerOptions
from outrider.server.web_guards import HostGuard, OriginGuard, ResponseHeaders, hosts_allowed


def call(
    *, method: str = "POST", path: str = "/v1/completions", headers: Sequence[tuple[str, str]] = (), **options: object
) -> httpx.Response:
    """The answer to one request, by an application with the middleware that `options` ask for."""
    found = ServerOptions(**options)  # type: ignore[arg-type]
    hosts = hosts_allowed(found.host, has_keys=bool(found.api_keys), allowed=found.allowed_hosts)
    middleware = [Middleware(ResponseHeaders), Middleware(OriginGuard, origins=found.allowed_origins)]
    if hosts:
        middleware.insert(1, Middleware(HostGuard, hosts=hosts))
    if found.api_keys:
        middleware.append(
            Middleware(ApiKeys, keys=found.api_keys, **({"prefixes": ("/",)} if found.guards_all_paths else {}))
        )

    async def answer(request: Request) -> Response:
        return PlainTextResponse("computed")

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST", "DELETE"])], middleware=middleware)

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            return await client.request(method, path, headers=list(headers))

    return asyncio.run(send())


FOREIGN = [
    [("Origin", "https://evil.example")],
    [("Origin", "null")],
    [("Origin", "http://localhost:3000")],
    [("Origin", "http://localhost:8000.evil.example")],
    [("Origin", "")],
    [("Sec-Fetch-Site", "cross-site")],
    [("Sec-Fetch-Site", "same-site")],
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_pages_of_other_origins_cannot_make_the_server_compute(method: str, headers: list[tuple[str, str]]) -> None:
    answer = call(method=method, headers=headers)
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "foreign_origin"


@pytest.mark.parametrize(
    "headers",
    [[], [("Origin", "http://localhost:8000")], [("Origin", "https://page.example")], [("Sec-Fetch-Site", "none")]],
    ids=str,
)
def test_programs_the_own_page_and_allowed_origins_can(headers: list[tuple[str, str]]) -> None:
    assert call(headers=headers, allowed_origins=("https://page.example",)).text == "computed"


def test_a_link_on_another_page_leads_here() -> None:
    assert call(method="GET", path="/", headers=[("Sec-Fetch-Site", "cross-site")]).status_code == 200


def test_every_origin_can_be_allowed() -> None:
    assert call(headers=[("Origin", "https://evil.example")], allowed_origins=("*",)).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io"])
def test_a_server_of_this_machine_alone_answers_to_its_own_names(host: str) -> None:
    assert call(method="GET", headers=[("Host", host)]).json()["error"]["code"] == "unknown_host"
    assert call(method="GET", headers=[("Host", host)], allowed_hosts=(host.partition(":")[0],)).status_code == 200
    assert call(method="GET", headers=[("Host", host)], host="0.0.0.0").status_code == 200, "others call it"
    assert call(method="GET", path="/version", headers=[("Host", host)], api_keys=("k",)).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:8000", "[::1]:8000", "[::1]", "10.0.0.7:80"])
def test_its_own_names_and_addresses(host: str) -> None:
    assert call(method="GET", headers=[("Host", host)]).status_code == 200


def test_a_name_can_be_asked_for_with_keys_too() -> None:
    headers = [("Host", "other.example"), ("Authorization", "Bearer k")]
    assert call(headers=headers, api_keys=("k",), allowed_hosts=("a.example",), host="0.0.0.0").status_code == 403


def test_keys_at_all_paths_or_where_the_model_is_used() -> None:
    for path, needs_key in (("/metrics", False), ("/", False), ("/openapi.json", False), ("/v1/models", True)):
        assert (call(method="GET", path=path, api_keys=("k",)).status_code == 401) == needs_key, path
        assert call(method="GET", path=path, api_keys=("k",), guards_all_paths=True).status_code == 401
        headers = [("x-api-key", "k")]
        assert call(method="GET", path=path, headers=headers, api_keys=("k",), guards_all_paths=True).status_code == 200
    assert call(method="GET", path="/health", api_keys=("k",), guards_all_paths=True).status_code == 200
    with pytest.raises(ConfigError, match="no effect without keys"):
        ServerOptions(guards_all_paths=True)


@pytest.mark.parametrize("headers", [[], [("Origin", "null")]], ids=["answer", "refusal"])
def test_every_response_says_what_a_browser_may_do_with_it(headers: list[tuple[str, str]]) -> None:
    found = call(headers=headers).headers
    assert found["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in found["content-security-policy"]


def test_options_do_not_show_secrets() -> None:
    shown = repr(ServerOptions(api_keys=("secret-key",), ssl_keyfile_password="secret-word"))
    assert "secret" not in shown


def test_keys_come_from_command_line_file_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text("one\n\n  two \none\n")
    assert api_keys(["zero"], file) == ("zero", "one", "two")
    monkeypatch.setenv("OUTRIDER_API_KEY", "three")
    assert api_keys([], file) == ("one", "two", "three")
    assert api_keys([], None) == ("three",)
    file.write_text("\n")
    for wrong in (file, tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="api_key_file="):
            api_keys([], wrong)
