"""Layers with windows of several lengths and heads of several widths, each group with blocks of its own."""

import random

import pytest
import torch

from outrider.attention.base import StepAttention
from tests.support import windowed_model
from tests.support.paged_runner import PagedRunner, load_tiny

VOCAB = 61


@pytest.fixture
def model(tmp_path, monkeypatch):
    windowed_model.find_it(monkeypatch)
    windowed_model.write(tmp_path / "windowed", vocab_size=VOCAB, eos_token_id=2)
    return load_tiny(tmp_path / "windowed", load_format="dummy", seed=3)


def tokens(count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(VOCAB) for _ in range(count)]


PROMPTS = {"long": tokens(150, 1), "short": tokens(7, 2), "middle": tokens(49, 3)}


def whole_logits(model) -> dict[str, torch.Tensor]:
    runner = PagedRunner(model)
    hidden, places = runner.feed(list(PROMPTS.items()))
    found = runner.logits(hidden)
    return {name: found[place] for name, place in zip(PROMPTS, places, strict=True)}


def test_logits_are_those_of_the_definition(model):
    for name, found in whole_logits(model).items():
        exact = windowed_model.logits(model, PROMPTS[name])
        assert (found.double() - exact).norm() < 3e-6 * exact.norm(), name


def test_every_window_counts(model, monkeypatch):
    """The comparison above sees a layer that sees too much, or too little by one."""
    original = StepAttention.attend
    for wrong in (lambda window: None, lambda window: window + 1, lambda window: window - 1):
        for changed in (5, 24):

            def attend(self, q, cache, *, window=None, _wrong=wrong, _changed=changed, **options):
                return original(self, q, cache, window=_wrong(window) if window == _changed else window, **options)

            monkeypatch.setattr(StepAttention, "attend", attend)
            found, exact = whole_logits(model)["long"], windowed_model.logits(model, PROMPTS["long"])
            assert (found.double() - exact).norm() > 1e-3 * exact.norm()


def test_groups_are_formed_by_window(model):
    runner = PagedRunner(model)
    assert [group.window for group in runner.groups] == [None, 24, 5]
    assert [cache.group for cache in runner.caches] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("sizes", [(1,), (13, 1, 4), (40,)])
@pytest.mark.parametrize("gives_blocks_back", [False, True])
def test_bits_are_the_same_in_chunks_and_without_the_blocks_that_no_window_reaches(model, sizes, gives_blocks_back):
    whole = whole_logits(model)
    runner = PagedRunner(model, gives_blocks_back=gives_blocks_back, num_blocks=24)
    done, turn = dict.fromkeys(PROMPTS, 0), 0
    while any(done[name] < len(prompt) for name, prompt in PROMPTS.items()):
        rows = []
        for index, (name, prompt) in enumerate(PROMPTS.items()):
            if done[name] < len(prompt):
                rows.append((name, prompt[done[name] :][: sizes[(turn + index) % len(sizes)]]))
        hidden, places = runner.feed(rows)
        found = runner.logits(hidden)
        for (name, part), place in zip(rows, places, strict=True):
            assert torch.equal(found[place], whole[name][done[name] : done[name] + len(part)]), name
            done[name] += len(part)
        turn += 1
    held = [sum(block != 0 for block in blocks) for blocks in runner.blocks["long"]]
    assert held == ([10, 3, 1] if gives_blocks_back else [10, 10, 10])
