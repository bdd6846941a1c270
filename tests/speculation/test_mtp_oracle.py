"""The MTP drafter, run by the engine with its paged KV, against transformers' own generic prediction layer."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from outrider import LLM, ConfigError, SamplingParams
from outrider.core.errors import CheckpointError, UnsupportedError
from tests.support.draft_recorder import check_choice, record_drafts
from tests.support.tiny_models import write_tiny_model
from tests.support.tiny_mtp import oracle_logits, write_hybrid, write_mimo

VOCAB, K = 61, 4
PARAMS = SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True)
TARGETS = {
    "mimo": lambda directory: write_mimo(directory, vocab_size=VOCAB),
    "qwen3_5": lambda directory: write_hybrid(directory, "qwen3_5", vocab_size=VOCAB),
    "qwen3_5_moe": lambda directory: write_hybrid(directory, "qwen3_5_moe", vocab_size=VOCAB),
    "qwen3_next": lambda directory: write_hybrid(directory, "qwen3_next", vocab_size=VOCAB),
}
"""Family -> what writes a tiny one and returns the model and the module of transformers."""


def make(target: Path, **options) -> LLM:
    config = {"method": "mtp", "num_speculative_tokens": K} | options.pop("config", {})
    return LLM(str(target), skip_tokenizer_init=True, speculative_config=config, **options)


@pytest.fixture(scope="module", params=TARGETS)
def target(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    return (directory, *TARGETS[request.param](directory))


@pytest.mark.parametrize(("wrong_every", "temperature"), [(None, 0.0), (3, 0.8)])
def test_drafts_equal_transformers(target, monkeypatch, wrong_every, temperature):
    directory, model, module = target
    config = {"method": "mtp", "num_speculative_tokens": K}
    recording = record_drafts(
        monkeypatch, directory, config, vocab_size=VOCAB, wrong_every=wrong_every, temperature=temperature
    )
    num_compared = 0
    for step in recording.steps:
        expected = oracle_logits(model, module, recording.answer, anchor=step[0].position, num_steps=K)
        for draft, logits in list(zip(step, expected, strict=True))[: 1 if wrong_every else K]:
            torch.testing.assert_close(draft.logits, logits, rtol=2e-4, atol=2e-4)
            check_choice(draft, logits, vocab_size=VOCAB, temperature=temperature)
            num_compared += 1
    assert num_compared >= 4


def test_the_order_of_inputs_matters(target):
    """A test that cannot see the order swapped could not see it right."""
    _, model, module = target
    tokens = list(range(3, 20))
    logits = oracle_logits(model, module, tokens, anchor=9, num_steps=1)[0]
    order = getattr(module.config, "mtp_hidden_states_first", False)
    module.config.mtp_hidden_states_first = not order
    swapped = oracle_logits(model, module, tokens, anchor=9, num_steps=1)[0]
    module.config.mtp_hidden_states_first = order
    assert (logits - swapped).abs().max() > 0.1


def _without_module(directory: Path) -> dict[str, torch.Tensor]:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    module = {name: tensor for name, tensor in tensors.items() if "mtp" in name}
    save_file({name: tensor for name, tensor in tensors.items() if name not in module}, path)
    return module


@pytest.mark.parametrize(
    "target",
    [name if name in ("mimo", "qwen3_5") else pytest.param(name, marks=pytest.mark.slow) for name in TARGETS],
    indirect=True,
    scope="module",
)
def test_the_module_may_lie_elsewhere(tmp_path, target):
    whole, _, _ = target
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((whole / file).read_bytes())
    module = _without_module(tmp_path)
    with pytest.raises(CheckpointError, match="has no prediction module: no tensor's name starts with"):
        make(tmp_path)
    (tmp_path / "module").mkdir()
    save_file(module, tmp_path / "module" / "model.safetensors")
    prompt = {"prompt_token_ids": [5, 9, 3, 44, 7, 12]}
    apart = make(tmp_path, config={"model": str(tmp_path / "module")}).generate(prompt, PARAMS)[0]
    assert apart.speculation == make(whole).generate(prompt, PARAMS)[0].speculation

    name = next(name for name in module if "o_proj" in name)
    save_file({key: module[key] for key in module if key != name}, tmp_path / "module" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 weight is \(0\.layer\.self_attn\.o_proj\.weight\)"):
        make(tmp_path, config={"model": str(tmp_path / "module")})
    stray = name.replace("layers.0.", "layers.1.")
    save_file(module | {stray: module[name].clone()}, tmp_path / "module" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensor is \(.*layers\.1\..*\) in the files not used"):
        make(tmp_path, config={"model": str(tmp_path / "module")})
    (tmp_path / "module" / "config.json").write_text(json.dumps({"speculators_model_type": "mtp"}))
    with pytest.raises(UnsupportedError, match="speculators_model_type='mtp' is not supported by method 'mtp'"):
        make(tmp_path, config={"model": str(tmp_path / "module")})


def test_a_target_without_a_module_is_refused(tmp_path):
    write_tiny_model(tmp_path, "qwen3", vocab_size=VOCAB)
    with pytest.raises(ConfigError, match="needs a target with a prediction module, and 'Qwen3ForCausalLM' has none"):
        make(tmp_path)


def test_more_modules_than_the_family_has_are_refused(tmp_path):
    write_hybrid(tmp_path, "qwen3_5", vocab_size=VOCAB)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mtp_num_hidden_layers": 3}))
    with pytest.raises(UnsupportedError, match="3 prediction layers, which is not supported for 'Qwen3_5ForCausalLM'"):
        make(tmp_path)
