"""Rope tables against transformers, for every type that is built."""

import math

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import ROPE_TYPES, RopeConfig, read_rope
from outrider.layers.rope import inverse_frequencies, rope_table

WIDTH = 64
POSITIONS = 300
LONG = {"factor": 8.0, "original_max_position_embeddings": 64}
FACTORS = {
    "short_factor": [1.0 + 0.05 * i for i in range(WIDTH // 2)],
    "long_factor": [1.5 + 0.75 * i for i in range(WIDTH // 2)],
}
CASES = [
    {"rope_type": "default", "rope_theta": 500000.0},
    {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5},
    {"rope_type": "llama3", "rope_theta": 10000.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **LONG},
    {"rope_type": "yarn", "rope_theta": 10000.0, **LONG},
    {"rope_type": "yarn", "rope_theta": 150000.0, "beta_fast": 24.0, "beta_slow": 2.0, "truncate": False, **LONG},
    {"rope_type": "yarn", "rope_theta": 10000.0, "mscale": 0.8, "mscale_all_dim": 0.5, **LONG},
    {"rope_type": "yarn", "rope_theta": 10000.0, "attention_factor": 1.25, **LONG},
    {"rope_type": "longrope", "rope_theta": 10000.0, **FACTORS, "original_max_position_embeddings": 299},
    {"rope_type": "longrope", "rope_theta": 10000.0, **FACTORS, "original_max_position_embeddings": 300},
    {"rope_type": "longrope", "rope_theta": 500.0, **FACTORS, **LONG, "attention_factor": 1.1},
    {"rope_type": "longrope", "rope_theta": 10000.0, **FACTORS, **LONG},
]


def _sizes() -> dict[str, object]:
    return {
        "vocab_size": 61,
        "hidden_size": 128,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
    }


def _read(case) -> RopeConfig:
    return read_rope(ConfigReader({"rope_parameters": dict(case)}), max_positions=512)


def test_every_type_has_a_case():
    assert {case["rope_type"] for case in CASES} == set(ROPE_TYPES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_table_equals_transformers(case):
    rope = _read(case)
    oracle = LlamaRotaryEmbedding(LlamaConfig(**_sizes(), rope_parameters=dict(case)))
    cos, sin = oracle(torch.zeros(1), torch.arange(POSITIONS)[None])
    half = WIDTH // 2
    expected = torch.cat([cos[0, :, :half], sin[0, :, :half]], dim=1)
    torch.testing.assert_close(rope_table(rope, WIDTH, POSITIONS), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("keys", "factor"),
    [
        ({}, 0.1 * math.log(4) + 1),
        ({"attn_factor": 0.5}, 0.5 * (0.1 * math.log(4) + 1)),
        ({"attn_factor": 0.8782488562869419}, 1.0),  # as published with a model of this type
        ({"attn_factor": 2.0, "mscale": 0.7, "mscale_all_dim": 1.0},
         2 * (0.07 * math.log(4) + 1) / (0.1 * math.log(4) + 1)),
        ({"attn_factor": 0.75, "apply_yarn_scaling": False}, 0.75),
        ({"apply_yarn_scaling": False}, 1.0),
        ({"mscale": 0.7, "mscale_all_dim": 0}, 0.1 * math.log(4) + 1),
        ({"attention_factor": 1.5, "attn_factor": 1.0}, 1.5),
    ],
    ids=str,
)  # fmt: skip
def test_yarns_factor_on_cos_and_sin_is_the_formulas(keys, factor):
    """transformers does not read attn_factor, so the formula of vLLM is the oracle."""
    rope = _read({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64} | keys)
    assert inverse_frequencies(rope, WIDTH, max_positions=512)[1] == factor
    plain = _read({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64})
    found, expected = (inverse_frequencies(one, WIDTH, max_positions=512)[0] for one in (rope, plain))
    assert torch.equal(found, expected)


def test_llama3_has_all_three_bands():
    rope = _read(CASES[2])
    scaled, _ = inverse_frequencies(rope, WIDTH, max_positions=512)
    plain = 10000.0 ** -(torch.arange(0, WIDTH, 2) / WIDTH)
    ratio = plain / scaled
    assert (ratio < 1.001).any() and (ratio > 7.999).any()
    assert ((ratio > 1.01) & (ratio < 7.9)).sum() >= 3


def test_a_longer_table_begins_with_the_shorter_one():
    rope = _read(CASES[3])
    assert torch.equal(rope_table(rope, WIDTH, 1000)[:77], rope_table(rope, WIDTH, 77))
