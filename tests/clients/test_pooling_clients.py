"""Client libraries of other projects drive a server with an embedder and find what plain HTTP gives."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.test_clients import SCRIPTS, command_of, environment_of
from tests.support.http_calls import post
from tests.support.pooling_models import change_config, write_embedder
from tests.support.running_server import RunningServer
from tests.support.server_under_test import ServerUnderTest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TEXTS = ["the harbour is closed", "bread and salt", "def pop(self):", "ice in the harbour"]
QUERY, DIMENSIONS = "which harbour", 16


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    folder = tmp_path_factory.mktemp("embedder")
    write_embedder(folder)
    change_config(folder, is_matryoshka=True)
    with RunningServer("--served-model-name", "small", model=folder) as started:
        yield ServerUnderTest(started.url + "/", started.process, list(started.lines))


@pytest.fixture(scope="module")
def truth(server: ServerUnderTest) -> dict[str, Any]:
    """The report of a client that finds all of it."""

    def answer(path: str, **body: Any) -> Any:
        status, found, _ = post(server, path, body)
        assert status == 200, found
        return found

    def ranks(**fields: Any) -> list[list[Any]]:
        found = answer("rerank", query=QUERY, documents=TEXTS, **fields)
        return [[result["index"], result["relevance_score"]] for result in found["results"]]

    whole = answer("v1/embeddings", input=TEXTS)
    vectors = [entry["embedding"] for entry in whole["data"]]
    short = answer("v1/embeddings", input=TEXTS, dimensions=DIMENSIONS)
    order = ranks()
    return {
        "vectors": vectors,
        "plain_vectors": vectors,
        "short_vectors": [entry["embedding"] for entry in short["data"]],
        "one_vector": vectors[:1],
        "num_tokens": whole["usage"]["prompt_tokens"],
        "ranks": order,
        "ranks_over_v1": order,
        "ranks_of_two_cut": ranks(top_n=2, max_tokens_per_doc=3),
        "documents": [TEXTS[index] for index, _ in order],
    }


@pytest.mark.parametrize(
    "script",
    sorted(path for path in SCRIPTS.iterdir() if path.stem.endswith("_pooling")),
    ids=lambda path: path.stem.removesuffix("_pooling"),
)
def test_a_client_finds_what_plain_http_gives(
    server: ServerUnderTest, truth: dict[str, Any], script: Path, tmp_path: Path
) -> None:
    task = {"url": server.url.rstrip("/"), "model": "small", "query": QUERY, "texts": TEXTS, "dimensions": DIMENSIONS}
    done = subprocess.run(
        command_of(script), input=json.dumps(task), capture_output=True, text=True, timeout=300,
        env=environment_of(tmp_path), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found, "the client found nothing"
    for name, value in found.items():
        assert value == truth[name], name
