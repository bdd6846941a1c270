"""An EAGLE-1 head, run by the engine with its paged KV, against one composed of transformers' own layers."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from outrider import LLM, ConfigError, SamplingParams
from outrider.core.errors import CheckpointError, UnsupportedError
from tests.support.draft_recorder import check_choice, record_drafts
from tests.support.tiny_heads import eagle_oracle_logits, random_eagle_head, random_head, save_original
from tests.support.tiny_models import write_tiny_model

VOCAB, K = 61, 4
TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit: states are fed back without a norm, and grow."""

PARAMS = SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True)
VARIANTS = {
    "llama": {},
    "no bias of fc, no embedding": {"has_fc_bias": False, "shares_embedding": True},
    "biases of q, k and v, a pickle": {"layer": "qwen2", "as_pickle": True},
    "a padded vocabulary": {"vocab_size": 80},
}


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    directory = tmp_path_factory.mktemp("target")
    write_tiny_model(directory, "llama", vocab_size=VOCAB)
    return directory


def make(target, head, **options) -> LLM:
    config = {"method": "eagle", "model": str(head), "num_speculative_tokens": K}
    return LLM(str(target), skip_tokenizer_init=True, speculative_config=config, **options)


@pytest.mark.parametrize(("wrong_every", "temperature"), [(None, 0.0), (3, 0.8)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_drafts_equal_transformers(target, tmp_path, monkeypatch, variant, wrong_every, temperature):
    options = {"vocab_size": VOCAB} | VARIANTS[variant]
    model = AutoModelForCausalLM.from_pretrained(target)
    if options.pop("shares_embedding", False):
        options["embedding"] = model.model.embed_tokens.weight
    head = random_eagle_head(tmp_path, **options)
    config = {"method": "eagle", "model": str(tmp_path), "num_speculative_tokens": K}
    recording = record_drafts(
        monkeypatch, target, config, vocab_size=VOCAB, wrong_every=wrong_every, temperature=temperature
    )
    num_compared = 0
    for step in recording.steps:
        expected = eagle_oracle_logits(model, head, recording.answer, anchor=step[0].position, num_steps=K)
        for draft, logits in list(zip(step, expected, strict=True))[: 1 if wrong_every else K]:
            assert (draft.logits - logits).abs().max() < TOLERANCE * logits.abs().max()
            check_choice(draft, logits, vocab_size=VOCAB, temperature=temperature)
            num_compared += 1
    assert num_compared >= 4


def test_a_wrapped_config_is_read(target, tmp_path):
    random_eagle_head(tmp_path, vocab_size=VOCAB)
    prompt = {"prompt_token_ids": [5, 9, 3, 44, 7, 12]}
    plain = make(target, tmp_path).generate(prompt, PARAMS)[0].speculation
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "eagle", "model": json.loads(path.read_text())}))
    assert make(target, tmp_path).generate(prompt, PARAMS)[0].speculation == plain


REFUSED = [
    ({"num_hidden_layers": 2}, UnsupportedError, "num_hidden_layers=2 is not supported for an EAGLE head"),
    (
        {"speculators_model_type": "eagle"},
        UnsupportedError,
        "speculators_model_type='eagle' is not supported by method 'eagle'",
    ),
    ({"draft_vocab_size": 40}, ConfigError, "an EAGLE-3 head, not one for method 'eagle'. Use method 'eagle3'"),
    ({"architectures": ["LlamaForCausalLMEagle3"]}, ConfigError, "an EAGLE-3 head"),
    ({"hidden_size": 48, "head_dim": 16}, ConfigError, "width 48 and the target has 64"),
    ({"vocab_size": 60}, ConfigError, "vocab_size=60 is less than the target's 61"),
    (
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
        UnsupportedError,
        "not supported: num_experts=4 .*; num_experts_per_tok=2; moe_intermediate_size=32",
    ),
    ({"attention_bias": True}, CheckpointError, r"q_proj\.bias"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_what_is_not_supported_is_refused_by_name(target, tmp_path, change, error, message):
    random_eagle_head(tmp_path, vocab_size=VOCAB)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=message):
        make(target, tmp_path)


@pytest.mark.parametrize("name", ["layers.0.input_layernorm.weight", "norm.weight", "lm_head.weight"])
def test_a_weight_that_the_format_does_not_have_is_named(target, tmp_path, name):
    """Heads of other makers add norms; running them without would be another model."""
    random_eagle_head(tmp_path, vocab_size=VOCAB)
    path = tmp_path / "model.safetensors"
    save_file(load_file(path) | {name: torch.ones(64)}, path)
    with pytest.raises(CheckpointError, match=rf"1 tensor is \({name}\) in the files not used"):
        make(target, tmp_path)


def test_an_eagle3_head_without_a_word_in_its_config_lacks_weights(target, tmp_path):
    head = random_head(vocab_size=VOCAB, draft_vocab_size=VOCAB, tap_layers=(0, 1, 2))
    save_original(head, tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text()) | {"architectures": ["LlamaForCausalLM"]}
    del values["draft_vocab_size"], values["eagle_aux_hidden_state_layer_ids"]
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"fc\.weight' has shape \[64, 192\].* asks for \[64, 128\]"):
        make(target, tmp_path)
