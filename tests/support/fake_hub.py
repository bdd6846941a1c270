"""A small hub over HTTP: the three requests by which the hub library finds and downloads the files of a model.

It serves folders of this machine as models, counts downloads, and can ask for a token or fail.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

TOKEN = "hf_reader"


def commit_of(revision: str) -> str:
    """The commit of a branch or tag."""
    return hashlib.sha1(revision.encode()).hexdigest()


@dataclass
class FakeHub:
    """Models by id with their revisions, and a list of the downloads."""

    models: dict[str, dict[str, Path]]
    """id -> revision -> the folder with its files."""
    gated: frozenset[str] = frozenset()
    """Models that need `TOKEN`."""
    url: str = ""
    downloads: list[str] = field(default_factory=list)
    """id/file of each file that was downloaded."""

    def folder(self, repository: str, revision: str) -> Path | None:
        """The files of a revision, by its name or commit."""
        for name, folder in self.models[repository].items():
            if revision in (name, commit_of(name)):
                return folder
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = unquote(self.path).partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repository, kind, revision = (
                "/".join(parts[2:4]),
                (parts[4:5] or ["revision"])[0],
                (parts[5:] or ["main"])[0],
            )
        else:
            repository, kind, revision = "/".join(parts[:2]), "resolve", parts[3]
        if repository not in self.hub.models:
            return self._fail(401, "RepoNotFound")
        if repository in self.hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._fail(403, "GatedRepo")
        folder = self.hub.folder(repository, revision)
        if folder is None:
            return self._fail(404, "RevisionNotFound")
        commit = next(commit_of(name) for name, path in self.hub.models[repository].items() if path == folder)
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        if kind == "revision":
            siblings = [{"rfilename": name} for name in files]
            return self._json({"id": repository, "sha": commit, "private": False, "siblings": siblings, "tags": []})
        if kind == "tree":
            return self._json(
                [
                    {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
                    for name, path in files.items()
                ]
            )
        name = "/".join(parts[4:])
        if name not in files:
            return self._fail(404, "EntryNotFound")
        if self.command == "GET":
            self.hub.downloads.append(f"{repository}/{name}")
        return self._send(200, files[name].read_bytes(), {"ETag": f'"{_etag(files[name])}"', "X-Repo-Commit": commit})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def fake_hub(models: dict[str, dict[str, Path]], *, gated: frozenset[str] = frozenset()) -> Iterator[FakeHub]:
    """A hub that serves `models` until the block ends."""
    hub = FakeHub(models=models, gated=gated)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
