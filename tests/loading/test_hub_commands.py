"""The commands with the id of a model on a hub, as a user runs them: downloaded once, then offline, then refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from outrider.core.zoo import shipped
from tests.support.fake_hub import FakeHub, fake_hub

pytestmark = pytest.mark.slow

HEAD = '{"method": "eagle3", "model": "org/tiny-eagle3", "num_speculative_tokens": 3}'


def run(*arguments: str, hub: FakeHub, home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command whose hub is `hub` and whose cache is in `home`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "OMP_NUM_THREADS": "1", **settings}
    command = [sys.executable, "-m", "outrider", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=home)


def test_a_model_and_its_drafter_by_id(tmp_path: Path) -> None:
    models = {f"org/{name}": {"main": Path(shipped(name))} for name in ("tiny", "tiny-eagle3")}
    with fake_hub(models) as hub:
        pulled = run("pull", "org/tiny", hub=hub, home=tmp_path)
        assert pulled.returncode == 0, pulled.stderr
        assert (Path(pulled.stdout.strip()) / "model.safetensors").is_file() and str(tmp_path) in pulled.stdout
        num_files = len(hub.downloads)
        generate = ("generate", "org/tiny", "--prompt", "def add(a, b):", "--max-tokens", "8", "--speculative-config")
        first = run(*generate, HEAD, hub=hub, home=tmp_path)
        assert first.returncode == 0, first.stderr
        fetched = {name.split("/")[1] for name in hub.downloads[num_files:]}
        assert fetched == {"tiny-eagle3"}, "the target was in the cache"
        again = run(*generate, HEAD, hub=hub, home=tmp_path, HF_HUB_OFFLINE="1")
        assert again.returncode == 0 and again.stdout == first.stdout, again.stderr
        for command in (("generate", "--prompt", "x"), ("serve", "--port", "0"), ("info",)):
            refused = run(command[0], "org/other", *command[1:], hub=hub, home=tmp_path, HF_HUB_OFFLINE="1")
            assert refused.returncode == 2 and "outrider pull org/other" in refused.stderr, refused.stderr
            assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
        refused = run("serve", "/nowhere", "--port", "0", hub=hub, home=tmp_path)
        assert refused.returncode == 2 and "'/nowhere' is not a directory" in refused.stderr, refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
