"""Models by id: what is downloaded from a hub, what the cache serves, and what each failure says."""

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from outrider.core.config import engine_config
from outrider.core.errors import CheckpointError, ConfigError
from outrider.core.zoo import shipped
from outrider.loading import hub as hub_loading
from outrider.loading.hub import fetch
from outrider.loading.hub_model import HubModel, is_hub_id
from outrider.loading.model_source import local_path, with_local_files
from tests.support.fake_hub import TOKEN, fake_hub

FILES = ("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors")
OTHERS = (
    "pytorch_model.bin", "consolidated.safetensors", "modeling_own.py", "onnx/model.safetensors", "README.md", "w.gguf",
)  # fmt: skip


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub with a model of two revisions, a gated one and an old drafter; the cache is empty."""
    for revision in ("main", "v2"):
        folder = tmp_path / revision
        for name in (*FILES, *OTHERS):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps({"revision": revision, "name": name}))
    drafter = tmp_path / "drafter"
    drafter.mkdir()
    (drafter / "config.json").write_text("{}")
    (drafter / "pytorch_model.bin").write_bytes(b"pickle")
    quantized = tmp_path / "quantized"
    quantized.mkdir()
    for name in ("model-Q4_K_M.gguf", "model-Q8_0.gguf"):
        (quantized / name).write_text(name)
    models = {
        "org/model": {"main": tmp_path / "main", "v2": tmp_path / "v2"},
        "org/gated": {"main": tmp_path / "main"},
        "org/head": {"main": drafter},
        "org/model-GGUF": {"main": quantized},
    }
    with fake_hub(models, gated=frozenset({"org/gated"})) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def failure(model: HubModel, **options: bool) -> str:
    with pytest.raises(CheckpointError) as caught:
        fetch(model, **options)
    return str(caught.value)


def test_only_files_that_are_read_are_downloaded_and_only_once(served):
    directory = Path(fetch(HubModel(name="org/model")))
    assert sorted(path.name for path in directory.iterdir()) == sorted(FILES)
    assert sorted(served.downloads) == sorted(f"org/model/{name}" for name in FILES)
    assert fetch(HubModel(name="org/model")) == str(directory) and len(served.downloads) == len(FILES)


def test_a_revision_has_its_own_files(served):
    directory = Path(fetch(HubModel(name="org/model", revision="v2")))
    assert json.loads((directory / "config.json").read_text())["revision"] == "v2"
    message = failure(HubModel(name="org/model", revision="v3"))
    assert "'org/model' (revision 'v3') has no revision 'v3' at" in message and "main branch" in message


def test_settings_alone_for_weights_that_are_drawn(served):
    directory = Path(fetch(HubModel(name="org/model"), has_weights=False))
    assert (directory / "config.json").is_file() and not (directory / "model.safetensors").exists()


def test_the_cache_can_be_elsewhere(served, tmp_path):
    assert fetch(HubModel(name="org/model", cache=str(tmp_path / "own"))).startswith(str(tmp_path / "own"))


def test_a_gated_model_needs_a_token_which_no_message_shows(served):
    assert "is gated" in failure(HubModel(name="org/gated"))
    wrong = HubModel(name="org/gated", token="hf_secret")
    assert "hf_secret" not in failure(wrong) + repr(wrong)
    assert Path(fetch(HubModel(name="org/gated", token=TOKEN))).is_dir()


def test_an_unknown_id_says_both_places_that_were_searched(served):
    message = failure(HubModel(name="org/nothing"))
    assert "'org/nothing' was found neither as a directory here nor as a model at http://127.0.0.1" in message


def test_a_pickle_is_taken_for_a_drafter_only(served):
    assert (Path(fetch(HubModel(name="org/head"), is_drafter=True)) / "pytorch_model.bin").is_file()
    assert "has no *.safetensors" in failure(HubModel(name="org/head"))


def test_a_gguf_file_is_chosen_by_the_end_of_its_name(served):
    for end in ("Q4_K_M", "q8_0", "Q8_0"):
        path = Path(local_path(HubModel(name=f"org/model-GGUF:{end}")))
        assert path.is_file() and path.read_text() == f"model-{end.upper()}.gguf"
    assert served.downloads == ["org/model-GGUF/model-Q4_K_M.gguf", "org/model-GGUF/model-Q8_0.gguf"]
    names = "model-Q4_K_M.gguf, model-Q8_0.gguf. Name one by its end: org/model-GGUF:Q4_K_M"
    assert names in failure(HubModel(name="org/model-GGUF"))
    message = failure(HubModel(name="org/model-GGUF:Q5_0"))
    assert "no file there ends with Q5_0.gguf" in message and names in message
    local_path(HubModel(name="org/model-GGUF:Q4_K_M"))
    (Path(local_path(HubModel(name="org/model-GGUF:Q8_0"))).parent / "other-Q8_0.gguf").write_text("")
    assert "is not one file but model-Q8_0.gguf, other-Q8_0.gguf" in failure(HubModel(name="org/model-GGUF:Q8_0"))


def test_offline_the_cache_serves_and_what_is_missing_is_named(served, monkeypatch):
    directory = Path(fetch(HubModel(name="org/model")))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(HubModel(name="org/model")) == str(directory)
    message = failure(HubModel(name="org/head"), is_drafter=True)
    assert "is not in the cache" in message and "outrider pull org/head" in message and "HF_HUB_OFFLINE" in message
    (directory / "model.safetensors").unlink()
    message = failure(HubModel(name="org/model"))
    assert "missing: model.safetensors" in message and "outrider pull org/model" in message


def test_a_hub_that_is_down_is_named(served, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    message = failure(HubModel(name="org/model"))
    assert "http://127.0.0.1:9 cannot be reached" in message and "outrider pull org/model" in message


def test_ids_and_paths_are_told_apart():
    for name in ("org/name", "gpt2", "Qwen/Qwen3-0.6B", "org/name-GGUF:Q4_K_M"):
        assert is_hub_id(name), name
    for name in ("/nowhere", "./model", "../model", "a/b/c", "model.gguf", "org/model.gguf", "", "org/ name", "a:b/c"):
        assert not is_hub_id(name), name


def test_target_and_drafter_become_paths(served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head = {"method": "eagle", "model": "org/head", "revision": "main"}
    config = engine_config("org/model", revision="v2", hf_token="hf_secret", speculative_config=head)
    assert "hf_secret" not in repr(config)
    local = with_local_files(config)
    assert json.loads((Path(local.model) / "config.json").read_text())["revision"] == "v2"
    assert (Path(local.speculative.options["model"]) / "pytorch_model.bin").is_file()
    assert local.hf_token is None, "the engine's process needs no token"


def test_a_directory_is_taken_before_a_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_loading, "snapshot_download", lambda *args, **options: pytest.fail("asked a hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert local_path(HubModel(name="org/model")) == "org/model"
    assert local_path(HubModel(name="zoo/tiny")) == shipped("tiny"), "anywhere, and never from a hub"
    with pytest.raises(ConfigError, match=r"no model zoo/huge. It has zoo/tiny"):
        local_path(HubModel(name="zoo/huge"))
    with pytest.raises(CheckpointError, match=r"'/nowhere' is not a directory"):
        local_path(HubModel(name="/nowhere"))
