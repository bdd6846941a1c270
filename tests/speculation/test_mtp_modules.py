"""Drafts of several prediction modules, and of DeepSeek-V3's, run by the engine, against the paper's definition."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from outrider import LLM
from outrider.core.errors import CheckpointError
from tests.support.draft_recorder import check_choice, record_drafts
from tests.support.prediction_modules import draft_logits, write_deep_mimo, write_latent

VOCAB, K = 61, 5
TARGETS = {
    "deepseek_v3, 1 module": lambda directory: write_latent(directory, vocab_size=VOCAB),
    "deepseek_v3, 3 modules": lambda directory: write_latent(directory, num_modules=3, vocab_size=VOCAB),
    "mimo, 2 modules": lambda directory: write_deep_mimo(directory, num_modules=2, vocab_size=VOCAB),
    "mimo, 7 modules": lambda directory: write_deep_mimo(directory, num_modules=7, vocab_size=VOCAB),
}
"""More drafts than modules, as many, and fewer."""
FAST = ("deepseek_v3, 3 modules",)


@pytest.fixture(
    scope="module", params=[name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in TARGETS]
)
def target(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("target")
    return (directory, *TARGETS[request.param](directory))


@pytest.mark.parametrize(("wrong_every", "temperature"), [(None, 0.0), (3, 0.8)])
def test_drafts_equal_the_paper(target, monkeypatch, wrong_every, temperature):
    directory, model, modules = target
    config = {"method": "mtp", "num_speculative_tokens": K}
    recording = record_drafts(
        monkeypatch, directory, config, vocab_size=VOCAB, wrong_every=wrong_every, temperature=temperature
    )
    num_compared = 0
    for step in recording.steps:
        expected = draft_logits(model, modules, recording.answer, anchor=step[0].position, num_steps=K)
        for draft, logits in list(zip(step, expected, strict=True))[: 1 if wrong_every else K]:
            torch.testing.assert_close(draft.logits, logits, rtol=5e-4, atol=5e-4)
            check_choice(draft, logits, vocab_size=VOCAB, temperature=temperature)
            num_compared += 1
    assert num_compared >= 4


def test_each_module_counts(target):
    """A test that cannot tell the modules apart could not see one in another's place."""
    _, model, modules = target
    if len(modules) == 1:
        pytest.skip("one module")
    tokens = list(range(3, 30))
    logits = draft_logits(model, modules, tokens, anchor=12, num_steps=3)
    swapped = draft_logits(model, modules[::-1], tokens, anchor=12, num_steps=3)
    for ours, others in zip(logits, swapped, strict=True):
        assert (ours - others).abs().max() > 0.1


def test_a_table_that_is_not_the_models_is_refused(tmp_path: Path):
    write_latent(tmp_path, vocab_size=VOCAB)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("shared_head.head.weight"))
    save_file(tensors | {name: tensors[name] * 2}, path)
    with pytest.raises(CheckpointError, match=r"shared_head\.head\.weight' is not the model's own table"):
        LLM(str(tmp_path), skip_tokenizer_init=True, speculative_config={"method": "mtp"})
