"""Every drafter changes speed only: those of the package, those for tests, and one in a user's package."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from outrider import ConfigError
from outrider.core import plugins
from outrider.core.errors import CheckpointError
from outrider.speculation import drafters
from tests.support import request_mix, tiny_drafters
from tests.support.tiny_heads import random_head, save_original, save_speculators
from tests.support.tiny_models import write_tiny_model

README = (Path(__file__).parents[2] / "README.md").read_text()
(CONSTANT,) = [
    block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class Drafter(BaseDrafter)" in block
]
"""The README's drafter in one file, as a reader copies it: it always says 7."""


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    directory = tmp_path_factory.mktemp("conformance")
    write_tiny_model(
        directory, "qwen3", vocab_size=request_mix.VOCAB, num_hidden_layers=4, eos_token_id=request_mix.EOS, seed=3,
        max_position_embeddings=512,
    )  # fmt: skip
    return directory


@pytest.fixture(scope="module")
def some():
    return request_mix.make_cases()[1:9]


@pytest.fixture(scope="module")
def expected(target, some):
    return request_mix.truth(target, some)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    model = random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40)
    return str(save_speculators(model, tmp_path_factory.mktemp("head")))


def check_changes_speed_only(target, config, some, expected):
    """Tokens are those without a drafter, and acceptance is reproducible if the drafter says so."""
    config = config | {"num_speculative_tokens": 2}
    llm = request_mix.make(target, speculative_config=config, max_num_batched_tokens=19)
    outputs = request_mix.run(llm, some)
    assert request_mix.mismatches(some, outputs, expected) == []
    assert sum(output.speculation.num_draft_tokens for output in outputs) > 0
    if llm.engine.worker.drafter.is_row_invariant:
        again = request_mix.run(request_mix.make(target, speculative_config=config, max_num_seqs=2), some)
        assert [output.speculation for output in outputs] == [output.speculation for output in again]


@pytest.mark.parametrize("method", plugins.names(drafters))
def test_a_drafter_changes_speed_only(method, some, tmp_path):
    tiny, some = tiny_drafters.write(method, tmp_path), some[:2] + some[5:7]
    check_changes_speed_only(tiny.target, tiny.config, some, request_mix.truth(tiny.target, some))


def test_a_drafter_of_random_ids_changes_speed_only(target, some, expected):
    check_changes_speed_only(target, {"method": "tests.support.drafters.noise"}, some, expected)


def test_a_drafter_that_knows_the_answers_changes_speed_only(target, some, expected):
    check_changes_speed_only(target, request_mix.replay(some, expected), some, expected)


def test_a_new_drafter_is_told_what_its_test_needs(tmp_path):
    with pytest.raises(AssertionError, match=r"no tests/support/tiny_drafters/medusa\.py: add one with a"):
        tiny_drafters.write("medusa", tmp_path)


def test_one_file_adds_a_drafter(target, some, expected, tmp_path, monkeypatch):
    (tmp_path / "always_seven.py").write_text(CONSTANT)
    monkeypatch.setattr(drafters, "__path__", [*drafters.__path__, str(tmp_path)])
    llm = request_mix.make(target, speculative_config={"method": "always_seven"})
    outputs = request_mix.run(llm, some)
    assert request_mix.mismatches(some, outputs, expected) == []
    assert sum(output.speculation.num_draft_tokens for output in outputs) > 0


def test_a_drafter_of_another_package_is_found_by_its_module_path(target, some, expected, tmp_path, monkeypatch):
    package = tmp_path / "package_of_a_user"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "always_seven.py").write_text(CONSTANT)
    monkeypatch.syspath_prepend(tmp_path)
    llm = request_mix.make(target, speculative_config={"method": "package_of_a_user.always_seven"})
    outputs = request_mix.run(llm, some)
    assert request_mix.mismatches(some, outputs, expected) == []
    assert sum(output.speculation.num_draft_tokens for output in outputs) > 0


@pytest.mark.parametrize("method", ["medusa", "noise", "replay"])
def test_an_unknown_drafter_is_refused_by_name(target, method):
    known = f"'{method}' is not known. Known: draft_model, eagle, eagle3, mtp, ngram. Name a module of your own by"
    with pytest.raises(ConfigError, match=re.escape(known)):
        request_mix.make(target, speculative_config={"method": method})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "the module has no class Drafter that inherits from outrider.speculation.drafter.BaseDrafter. Add one."),
        ("class Drafter:\n    pass\n", "the module has no class Drafter that inherits"),
        ("Drafter = 5\n", "the module has no class Drafter that inherits"),
    ],
)
def test_a_module_that_is_not_a_drafter_is_refused(target, tmp_path, monkeypatch, source, message):
    name = f"not_a_drafter_{len(source)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "module.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(message)):
        request_mix.make(target, speculative_config={"method": f"{name}.module"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 60}, "vocab_size=60 is not the target's 61"),
        ({"hidden_size": 48}, "width 48 and the target has 64"),
        ({"tap_layers": (1, 2, 9)}, "tap 9 is out of range"),
    ],
)
def test_a_head_of_another_target_is_refused(target, tmp_path, changes, message):
    model = random_head(**({"vocab_size": request_mix.VOCAB, "draft_vocab_size": 40} | changes))
    config = {"method": "eagle3", "model": str(save_speculators(model, tmp_path))}
    with pytest.raises(ConfigError, match=message):
        request_mix.make(target, speculative_config=config)


def test_contradicting_vocabulary_maps_are_refused(target, tmp_path):
    model = random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40)
    model.d2t[5] += 1
    with pytest.raises(CheckpointError, match="d2t and t2d contradict"):
        request_mix.make(
            target, speculative_config={"method": "eagle3", "model": str(save_speculators(model, tmp_path))}
        )


def test_absolute_ids_in_d2t_are_understood(target, some, expected, tmp_path, head):
    model = random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40)
    model.d2t += torch.arange(40)
    config = {"method": "eagle3", "model": str(save_original(model, tmp_path))}
    absolute = request_mix.run(request_mix.make(target, speculative_config=config), some)
    offsets = request_mix.run(request_mix.make(target, speculative_config={"method": "eagle3", "model": head}), some)
    assert [output.speculation for output in absolute] == [output.speculation for output in offsets]


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {name: tensor for name, tensor in tensors.items() if name != "t2d"},
        lambda tensors: {name: tensor for name, tensor in tensors.items() if name != "d2t"},
        lambda tensors: tensors | {"d2t": tensors["d2t"].int()},
        lambda tensors: tensors | {"t2d": tensors["t2d"].to(torch.uint8), "d2t": tensors["d2t"].to(torch.uint8)},
        lambda tensors: tensors | {"t2d": torch.zeros_like(tensors["t2d"])},
        lambda tensors: {name: tensor for name, tensor in _absolute(tensors).items() if name != "t2d"},
    ],
    ids=["d2t only", "t2d only", "int32", "uint8", "no marks", "ids only"],
)
def test_vocabulary_maps_of_every_form_name_the_same_tokens(target, tmp_path, change):
    directory = save_original(random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40), tmp_path / "head")
    (file,) = directory.glob("*.safetensors")
    tensors = load_file(file)
    save_file(change(tensors), file)
    llm = request_mix.make(target, speculative_config={"method": "eagle3", "model": str(directory)})
    assert torch.equal(llm.engine.worker.drafter.draft_token_ids, tensors["t2d"].nonzero().squeeze(1))


@pytest.mark.parametrize("stored", ["ids", "offsets"])
def test_a_map_without_marks_that_could_be_read_both_ways_is_told_apart(target, tmp_path, stored):
    """Every second id from 0 on: as offsets, these numbers would also be ids of the vocabulary."""
    directory = save_original(random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=20), tmp_path / "head")
    (file,) = directory.glob("*.safetensors")
    tensors = load_file(file)
    del tensors["t2d"]
    ids = torch.arange(20) * 2 if stored == "ids" else torch.arange(20) + torch.arange(20) // 3
    save_file(tensors | {"d2t": ids if stored == "ids" else ids - torch.arange(20)}, file)
    llm = request_mix.make(target, speculative_config={"method": "eagle3", "model": str(directory)})
    assert torch.equal(llm.engine.worker.drafter.draft_token_ids, ids)


def _absolute(tensors):
    return tensors | {"d2t": tensors["d2t"] + torch.arange(len(tensors["d2t"]))}


def test_marks_that_are_too_few_for_a_map_are_refused(target, tmp_path):
    directory = save_original(random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40), tmp_path / "head")
    (file,) = directory.glob("*.safetensors")
    tensors = load_file(file)
    del tensors["d2t"]
    tensors["t2d"][tensors["t2d"].nonzero()[0]] = False
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match="t2d marks 39 tokens and the head drafts 40"):
        request_mix.make(target, speculative_config={"method": "eagle3", "model": str(directory)})


def test_a_missing_weight_of_the_head_is_named(target, tmp_path):
    model = random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40)
    model.fc = None
    with pytest.raises(CheckpointError, match=r"fc\.weight"):
        request_mix.make(target, speculative_config={"method": "eagle3", "model": str(save_original(model, tmp_path))})
