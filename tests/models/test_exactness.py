"""A token's hidden state and logits have the same bits however its tokens were cut into steps and rows."""

import pytest
import torch

from tests.support.paged_runner import PagedRunner, load_tiny
from tests.support.tiny_models import write_tiny_model

LENGTHS = (90, 17, 1, 66)
SLOW = [
    pytest.param(family, marks=pytest.mark.slow) for family in ("gemma3", "olmo3", "phi3", "gpt_oss", "deepseek_v3")
]
"""Families whose layers have other parts, of which kernels have tests of their own."""


@pytest.fixture(scope="module", params=["llama", "qwen3", "qwen3_moe", "qwen3_5", *SLOW])
def model(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    heads = {} if request.param == "deepseek_v3" else {"num_attention_heads": 8, "num_key_value_heads": 2}
    write_tiny_model(directory, request.param, **heads)
    model = load_tiny(directory)
    model.set_taps((0, 1, 2))
    return model


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, 503, (n,), generator=generator).tolist() for n in LENGTHS]


@pytest.fixture(scope="module")
def alone(model, prompts):
    """Logits and taps of each prompt, alone in a step."""
    results = []
    for prompt in prompts:
        runner = PagedRunner(model, seed=len(prompt))
        hidden, _ = runner.feed([("only", prompt)])
        results.append((runner.logits(hidden), hidden.taps))
    return results


def _agrees(runner, alone, rows, **options):
    """One step of (prompt index, start, stop) rows, compared with the prompts alone."""
    prompts = runner.prompts
    hidden, places = runner.feed([(i, prompts[i][start:stop]) for i, start, stop in rows], **options)
    logits = runner.logits(hidden)
    for (i, start, stop), place in zip(rows, places, strict=True):
        assert torch.equal(logits[place], alone[i][0][start:stop])
        assert torch.equal(hidden.taps[place], alone[i][1][start:stop])


@pytest.fixture
def runner(model, prompts):
    runner = PagedRunner(model, seed=5)
    runner.prompts = prompts
    return runner


def test_a_crowd_equals_each_alone(runner, alone):
    _agrees(runner, alone, [(i, 0, n) for i, n in enumerate(LENGTHS)])


@pytest.mark.parametrize("num_threads", [1, 2])
def test_chunks_with_padding_equal_the_whole(runner, alone, num_threads):
    torch.set_num_threads(num_threads)
    try:
        for start in range(0, 90, 13):
            _agrees(runner, alone, [(0, start, min(start + 13, 90))], num_padding=start % 5, extra_bound=start)
    finally:
        torch.set_num_threads(1)


def test_decoding_equals_the_prompt(runner, alone):
    _agrees(runner, alone, [(0, 0, 50), (3, 0, 60)])
    for step in range(6):
        _agrees(runner, alone, [(3, 60 + step, 61 + step), (0, 50 + step, 51 + step)])


def test_verifying_after_rejected_drafts_equals_the_prompt(runner, alone, prompts):
    _agrees(runner, alone, [(0, 0, 60), (1, 0, 9)])
    for length in (60, 62, 66):
        runner.rewind(0, length)
        runner.feed([(0, [prompts[0][length], 6, 7, 8]), (1, prompts[1][9:13])], num_drafts=3)
        runner.rewind(0, length)  # wrong drafts leave behind what they wrote
        runner.rewind(1, 9)
        _agrees(runner, alone, [(1, 9, 13), (0, length, length + 4)], num_drafts=3)
        runner.rewind(1, 9)


def test_taps_are_the_residual_stream(tmp_path):
    oracle = write_tiny_model(tmp_path, "qwen3", num_hidden_layers=3)
    model = load_tiny(tmp_path)
    model.set_taps((3, 0, 2))
    streams = {}
    oracle.model.layers[-1].register_forward_hook(lambda module, inputs, output: streams.update(last=output))
    ids = list(range(5, 45))
    with torch.no_grad():
        states = oracle(torch.tensor([ids]), output_hidden_states=True).hidden_states
    hidden, _ = PagedRunner(model).feed([(0, ids)])
    expected = torch.cat([streams["last"][0], states[0][0], states[2][0]], dim=1)
    torch.testing.assert_close(hidden.taps, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(hidden.last, states[3][0], rtol=1e-4, atol=1e-4)


def test_a_tap_that_does_not_exist_is_refused(model):
    count = model.config.num_layers
    with pytest.raises(ValueError, match=rf"tap {count + 1} is out of range.*{count} layers"):
        model.set_taps((1, count + 1))
