"""Random weights: a pure function of seed and name, and logits that are worth sampling from."""

import pytest
import torch

from tests.support.paged_runner import PagedRunner, load_tiny
from tests.support.tiny_models import write_tiny_model


@pytest.fixture(scope="module", params=[("llama", False), ("qwen3", True)], ids=str)
def directory(request, tmp_path_factory):
    family, is_tied = request.param
    directory = tmp_path_factory.mktemp(family)
    write_tiny_model(directory, family, tie_word_embeddings=is_tied, attention_bias=True, num_hidden_layers=4)
    for weights in directory.glob("*.safetensors"):
        weights.unlink()
    return directory


def test_a_seed_gives_one_model(directory):
    first, second = (dict(load_tiny(directory, load_format="dummy", seed=3).named_parameters()) for _ in range(2))
    other = dict(load_tiny(directory, load_format="dummy", seed=4).named_parameters())
    for name, weight in first.items():
        assert torch.isfinite(weight).all()
        assert torch.equal(weight, second[name])
        assert not torch.equal(weight, other[name])


def test_logits_are_neither_flat_nor_one_hot(directory):
    runner = PagedRunner(load_tiny(directory, load_format="dummy"))
    logits = runner.logits(runner.feed([(0, list(range(3, 60)))])[0])
    assert 1.0 < logits.std() < 30.0
    best = logits.argmax(dim=1)
    assert best.unique().numel() > 5
