"""A bug in an endpoint: the caller learns a number, the log says the rest."""

import asyncio

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outrider.server import app as app_module
from tests.support.log_lines import log_lines

SECRET = "/srv/models/secret-path"


def test_nothing_of_the_error_leaves_the_server() -> None:
    async def broken(request: Request) -> Response:
        raise AttributeError(f"cannot read {SECRET}")

    async def send() -> httpx.Response:
        app = Starlette(routes=[Route("/", broken)], exception_handlers={Exception: app_module._server_error})
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/")

    with log_lines() as lines:
        answer = asyncio.run(send())
    assert answer.status_code == 500 and answer.headers["x-content-type-options"] == "nosniff"
    assert "AttributeError" not in answer.text and SECRET not in answer.text
    (said,) = lines
    number = said.partition("internal error ")[2].split()[0]
    assert f"internal error {number}." in answer.json()["error"]["message"]
