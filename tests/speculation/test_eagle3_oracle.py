"""The EAGLE-3 head, run by the engine with its paged KV, against the `speculators` library's own forward.

The drafter is made to draft the true continuation, so the library's teacher-forced training loop sees the same
tokens: its step i at anchor j must give the logits of the engine's i-th draft after token j, and the engine's own
choice must be the best of them, as a token of the target.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from outrider import LLM
from outrider.core.errors import CheckpointError
from tests.support.draft_recorder import check_choice, record_drafts
from tests.support.tiny_heads import oracle_logits, random_head, save_original, save_speculators
from tests.support.tiny_models import write_tiny_model

VOCAB, DRAFT_VOCAB, K = 61, 40, 4
VARIANTS = [
    {"layer": "llama"},
    {"layer": "qwen3", "norm_before_residual": True},
    {"layer": "llama", "norm_before_fc": True, "norm_before_residual": True},
    {"layer": "qwen3", "fc_norm": True, "norm_output": True},
]
DEEP = {"layer": "qwen3", "num_layers": 3, "norm_before_residual": True}


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    directory = tmp_path_factory.mktemp("target")
    write_tiny_model(directory, "qwen3", vocab_size=VOCAB, num_hidden_layers=5)
    return directory


def _taps(target_model, token_ids: list[int], layers: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        states = target_model(torch.tensor([token_ids]), output_hidden_states=True).hidden_states
    return torch.cat([states[layer][0] for layer in layers], dim=1)


def _save(head, form: str, directory) -> str:
    """`form`: "speculators", or "original" with d2t as offsets or as the target ids themselves."""
    if form == "speculators":
        return str(save_speculators(head, directory))
    if form == "original, absolute ids":
        head.d2t += torch.arange(DRAFT_VOCAB)
    return str(save_original(head, directory))


@pytest.mark.parametrize(("wrong_every", "temperature"), [(None, 0.0), (3, 0.8)])
@pytest.mark.parametrize(
    ("variant", "form"),
    [*((variant, "speculators") for variant in VARIANTS), (VARIANTS[0], "original"),
     (VARIANTS[0], "original, absolute ids"), pytest.param(DEEP, "speculators", marks=pytest.mark.slow)],
    ids=str,
)  # fmt: skip
def test_drafts_equal_the_speculators_library(target, tmp_path, monkeypatch, variant, form, wrong_every, temperature):
    head = random_head(vocab_size=VOCAB, draft_vocab_size=DRAFT_VOCAB, **variant)
    config = {"method": "eagle3", "model": _save(head, form, tmp_path / "head"), "num_speculative_tokens": K}
    compare(monkeypatch, target, head, config, vocabulary=DRAFT_VOCAB, wrong_every=wrong_every, temperature=temperature)


def compare(monkeypatch, target, head, config, *, vocabulary, wrong_every=None, temperature=0.0):
    """The drafts of `config` are those of the library's head."""
    recording = record_drafts(
        monkeypatch, target, config, vocab_size=VOCAB, wrong_every=wrong_every, temperature=temperature
    )
    answer = recording.answer
    taps = _taps(AutoModelForCausalLM.from_pretrained(target), answer[:-1], (1, 2, 4))
    expected = oracle_logits(head, taps, answer, num_steps=K)
    token_ids = (
        torch.arange(VOCAB) if head.t2d is None else head.t2d.nonzero().squeeze(1)
    )  # the target's tokens that have a draft id, in its order
    assert len(token_ids) == vocabulary
    assert vocabulary == VOCAB or not torch.equal(token_ids, torch.arange(vocabulary))
    num_compared = 0
    for step in recording.steps:
        # the anchor's row joins the feature of token position - 2 with token position - 1
        anchor = step[0].position - 2
        for draft, logits in list(zip(step, expected, strict=True))[: 1 if wrong_every else K]:
            torch.testing.assert_close(draft.logits, logits[anchor], rtol=2e-4, atol=2e-4)
            check_choice(draft, logits[anchor], vocab_size=VOCAB, token_ids=token_ids, temperature=temperature)
            num_compared += 1
    assert num_compared >= 4


def change(directory, *, config=None, drop=()):
    """Other keys in config.json, and fewer tensors."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
    path = directory / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(path).items() if name not in drop}
    save_file(tensors, path)


WHOLE = ("lm_head.weight", "d2t", "t2d")


@pytest.mark.parametrize(
    ("is_tied", "num_layers"),
    [pytest.param(False, 2, id="the target's"), pytest.param(True, 1, id="its own embedding", marks=pytest.mark.slow)],
)
def test_a_head_of_the_whole_vocabulary_needs_no_lm_head(target, tmp_path, monkeypatch, is_tied, num_layers):
    head = random_head(vocab_size=VOCAB, draft_vocab_size=VOCAB, num_layers=num_layers)
    directory = save_original(head, tmp_path / "head")
    change(directory, config={"tie_word_embeddings": is_tied}, drop=WHOLE)
    oracle = AutoModelForCausalLM.from_pretrained(target)
    with torch.no_grad():
        head.lm_head.weight.copy_(head.embed_tokens.weight if is_tied else oracle.lm_head.weight)
    config = {"method": "eagle3", "model": str(directory), "num_speculative_tokens": K}
    compare(monkeypatch, target, head, config, vocabulary=VOCAB)


def test_a_part_of_the_vocabulary_needs_an_lm_head(target, tmp_path):
    directory = save_original(random_head(vocab_size=VOCAB, draft_vocab_size=DRAFT_VOCAB), tmp_path / "head")
    change(directory, drop=("lm_head.weight",))
    with pytest.raises(CheckpointError, match=r"1 weight is \(lm_head\.weight\) of the model not in the files"):
        LLM(str(target), speculative_config={"method": "eagle3", "model": str(directory)}, skip_tokenizer_init=True)


@pytest.mark.slow
@pytest.mark.parametrize(("meaning", "value"), [("fed_back", True), ("logits", False)])
def test_norm_output_of_the_original_format(target, tmp_path, monkeypatch, meaning, value):
    head = random_head(vocab_size=VOCAB, draft_vocab_size=DRAFT_VOCAB, norm_output=meaning == "fed_back")
    directory = save_original(head, tmp_path / "head")
    change(directory, config={"norm_output": value})
    if meaning == "logits":
        head.norm = torch.nn.Identity()
    config = {"method": "eagle3", "model": str(directory), "num_speculative_tokens": K, "norm_output": meaning}
    compare(monkeypatch, target, head, config, vocabulary=DRAFT_VOCAB)
