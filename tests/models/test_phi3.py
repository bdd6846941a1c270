"""Phi-3: the tensors of fused projections, taken apart by rows; and longrope, whose factors an engine chooses once."""

import pytest
import torch

from outrider import LLM, SamplingParams
from outrider.core.errors import CheckpointError
from outrider.runtime.describe import describe
from tests.support.paged_runner import PagedRunner, load_tiny
from tests.support.tiny_models import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("phi3")
    write_tiny_model(directory, "phi3")
    return load_tiny(directory)


def names_of(model, name, tensor):
    return {part: piece.tolist() for part, piece in model.split(name, tensor)}


def test_rows_and_their_scales_are_taken_apart(model):
    """4 heads of q and 2 of k and v, 16 wide; gate and up have 96 rows each."""
    prefix, rows = "model.layers.0.", torch.arange(128)
    assert names_of(model, f"{prefix}self_attn.qkv_proj.weight_scale", rows) == {
        f"{prefix}self_attn.q_proj.weight_scale": list(range(64)),
        f"{prefix}self_attn.k_proj.weight_scale": list(range(64, 96)),
        f"{prefix}self_attn.v_proj.weight_scale": list(range(96, 128)),
    }
    assert names_of(model, f"{prefix}mlp.gate_up_proj.weight", torch.arange(192)) == {
        f"{prefix}mlp.gate_proj.weight": list(range(96)),
        f"{prefix}mlp.up_proj.weight": list(range(96, 192)),
    }


@pytest.mark.parametrize("scale", [torch.tensor(0.5), torch.tensor([0.5])])
def test_a_scale_of_the_whole_belongs_to_each_part(model, scale):
    found = dict(model.split("model.layers.0.mlp.gate_up_proj.weight_scale", scale))
    assert list(found) == [f"model.layers.0.mlp.{part}_proj.weight_scale" for part in ("gate", "up")]
    assert all(torch.equal(piece, scale) for piece in found.values())
    name = "model.layers.0.self_attn.o_proj.weight_scale"
    assert list(model.split(name, scale)) == [(name, scale)]


def test_other_rows_are_refused_by_name(tmp_path, model):
    name = "model.layers.0.self_attn.qkv_proj.weight"
    assert [part for part, _ in model.split(name, torch.zeros(127, 64))] == [name]
    write_tiny_model(tmp_path, "phi3", num_key_value_heads=4)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"num_key_value_heads": 4', '"num_key_value_heads": 2'))
    with pytest.raises(CheckpointError, match="not in the files"):
        load_tiny(tmp_path)


FACTORS = {"short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [1.5 + 2.0 * i for i in range(8)]}
LONGROPE = {
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64, **FACTORS,
    },
    "original_max_position_embeddings": 64,
    "sliding_window": None,
}  # fmt: skip
SHORT_OR_LONG = {"short": (64, (9, 64)), "long": (256, (9, 64, 65, 100))}
"""Positions of the engine, and lengths of prompts."""


def tokens(count: int) -> list[int]:
    return torch.randint(3, 503, (count,), generator=torch.Generator().manual_seed(count)).tolist()


def chosen_once(oracle, kind: str):
    """transformers' model with the factors of this kind at every length."""
    for module in oracle.modules():
        if hasattr(module, "original_inv_freq"):
            module.config.rope_parameters |= {"short_factor": FACTORS[f"{kind}_factor"]}
            rebuilt = type(module)(module.config)
            module.original_inv_freq = rebuilt.original_inv_freq
    return oracle


@pytest.mark.parametrize("kind", SHORT_OR_LONG)
def test_longrope_is_chosen_by_the_positions_of_the_engine(tmp_path, kind):
    oracle = write_tiny_model(tmp_path, "phi3", **LONGROPE)
    max_positions, lengths = SHORT_OR_LONG[kind]
    model = load_tiny(tmp_path, max_positions=max_positions)
    prompts = [tokens(count) for count in lengths]
    runner = PagedRunner(model)
    hidden, places = runner.feed(list(enumerate(prompts)))
    logits = runner.logits(hidden)
    for prompt, place in zip(prompts, places, strict=True):
        is_oracles_own = (len(prompt) > 64) == (kind == "long")
        with torch.no_grad():
            own = oracle(torch.tensor([prompt])).logits[0]
        assert ((logits[place] - own).abs().max() < 1e-4 * own.abs().max()) == is_oracles_own, len(prompt)
    oracle = chosen_once(oracle, kind)
    for prompt, place in zip(prompts, places, strict=True):
        with torch.no_grad():
            expected = oracle(torch.tensor([prompt])).logits[0]
        assert (logits[place] - expected).abs().max() < 1e-4 * expected.abs().max()


def test_an_engine_says_which_factors_it_has(tmp_path):
    """And a request that grows beyond the length has the tokens of one that begins beyond it."""
    write_tiny_model(tmp_path, "phi3", **LONGROPE)
    options = {"skip_tokenizer_init": True, "device": "cpu"}
    llm = LLM(str(tmp_path), **options)
    assert dict(describe(llm.engine.worker))["rope"] == "longrope, long factors: max_model_len is above the original 64"
    params = SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True, detokenize=False)
    prompt = tokens(50)
    found = llm.generate([{"prompt_token_ids": prompt}], params)[0].outputs[0].token_ids
    beyond = {"prompt_token_ids": prompt + list(found[:20])}
    assert llm.generate([beyond], params)[0].outputs[0].token_ids[:10] == found[20:]
    short = LLM(str(tmp_path), max_model_len=64, **options)
    assert dict(describe(short.engine.worker))["rope"].startswith("longrope, short factors: max_model_len is not above")
