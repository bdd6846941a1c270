"""`outrider chat` on a terminal, with the server of this folder, a foreign server and a model of its own."""

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.server_under_test import ServerUnderTest
from tests.support.terminal import Terminal

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from outrider.cli import main; main()", "chat"]
QUESTION = "Anna has 14 apples and buys 9 more. How many?"
GREEN, YELLOW = "\x1b[1;32m", "\x1b[33m"

pytestmark = pytest.mark.slow


def environment(tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "src"), *sys.path])
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(tmp_path)}


def chat(tmp_path: Path, *options: str) -> Terminal:
    return Terminal([*COMMAND, *options], environment=environment(tmp_path), cwd=str(ROOT))


def check_a_talk(terminal: Terminal) -> None:
    """A question, its answer in colours with live figures, the answer again without drafts, several lines."""
    terminal.wait_for(r"Ctrl-D ends.*you> ")
    begin = len(terminal.shown)
    terminal.type(f"{QUESTION}\r")
    answer = terminal.wait_for(r"#### 23.*\d+ of \d+ drafts accepted \(\d+%\) · [\d.]+ s[^\n]*\r\n.*you> ")
    shown = terminal.shown[begin:]
    assert GREEN in shown and YELLOW in shown
    assert len(re.findall(r"\x1b7\r\x1b\[B\x1b\[K.*?\d+ tokens in \d+ steps.*?\x1b8", shown)) >= 5, (
        "figures while it runs"
    )
    assert shown.count("\x1b7") == shown.count("\x1b8") and shown.rindex("\x1b[J") > shown.rindex("\x1b8")
    (count,) = set(re.findall(r"(\d+) tokens in \d+ steps[^\n]*\r\n", answer)[-1:])
    terminal.type("/spec off\r")
    said = terminal.wait_for(r"The same tokens, all (\d+)\. With drafts \d+ steps.*you> ")
    assert f"all {count}." in said and f"without {count} steps" in said
    terminal.type('/clear\r"""How many\r')
    terminal.wait_for(r"\.\.\.> ")
    terminal.type('apples?"""\r')
    terminal.wait_for(r"drafts off.*you> ", seconds=120)
    terminal.type("/history\r")
    assert "user: How many\r\napples?\r\nassistant: " in terminal.wait_for(r"assistant: .*you> ")
    terminal.type("/sede 3\r")
    terminal.wait_for(r"/sede is not a command.*you> ")
    for _ in range(5):  # at once after the prompt, too
        terminal.type("abc\x03")
        terminal.wait_for(r"Ctrl-D or /exit ends.*you> ", seconds=30.0)
    terminal.type("\x1b[A\r")  # the arrow gives the last input again
    terminal.wait_for(r"/sede is not a command.*you> ")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_with_a_server(server: ServerUnderTest, tmp_path: Path) -> None:
    with chat(tmp_path, "--url", server.url, "--temperature", "0", "--max-tokens", "64") as terminal:
        check_a_talk(terminal)
    kept = tmp_path / "outrider" / "chat-history"
    assert QUESTION in kept.read_text() and kept.stat().st_mode & 0o077 == 0


def test_with_a_model_of_its_own(tmp_path: Path) -> None:
    with chat(tmp_path, "--max-tokens", "64") as terminal:
        check_a_talk(terminal)


def test_ctrl_c_ends_an_answer_and_not_the_talk(server: ServerUnderTest, tmp_path: Path) -> None:
    with chat(tmp_path, "--url", server.url, "--temperature", "1") as terminal:
        terminal.wait_for(r"you> ")
        terminal.type("Tell me a story.\r")
        terminal.wait_for(r"Tell me a story\.\r\n\S+")
        terminal.type("\x03")
        terminal.wait_for(r"· [\d.]+ s · seed \d+\r\n.*you> ", seconds=20)
        terminal.type("/exit\r")
        assert terminal.end() == 0


def test_inputs_from_a_pipe_give_plain_text(server: ServerUnderTest, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--url", server.url, "--temperature", "0"],
        input=f"{QUESTION}\n", capture_output=True, text=True, check=False, env=environment(tmp_path), cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "#### 23\n" in done.stdout and "\x1b" not in done.stdout and "you>" not in done.stdout


class Foreign(BaseHTTPRequestHandler):
    """A server that knows OpenAI's fields and refuses others."""

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._send(json.dumps({"data": [{"id": "other", "owned_by": "someone"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body.keys() <= {"model", "messages", "stream", "seed", "stream_options"}, body
        assert self.headers["Authorization"] == "Bearer secret" and body["model"] == "other"
        chunks = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("Good ", "day.")]
        usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in (*chunks, usage)]
        self._send("".join([*lines, "data: [DONE]\n\n"]))

    def _send(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def test_with_a_foreign_server(tmp_path: Path) -> None:
    other = ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        with chat(tmp_path, "--url", f"http://127.0.0.1:{other.server_port}/v1", "--api-key", "secret") as terminal:
            terminal.wait_for(r"other on http.*you> ")
            terminal.type("Hello\r")
            assert "Good day." in terminal.wait_for(r"2 tokens · [\d.]+ s · seed \d+\r\n.*you> ")
            assert GREEN not in terminal.shown and YELLOW not in terminal.shown
            terminal.type("/spec off\r")
            terminal.wait_for(r"there is no drafter to switch.*you> ")
            terminal.type("\x04")
            assert terminal.end() == 0
    finally:
        other.shutdown()
        other.server_close()
