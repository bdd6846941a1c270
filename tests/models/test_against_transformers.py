"""Every family against transformers: logits of a mixed batch, and the greedy continuation of each prompt."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

import outrider.models
from outrider.core import plugins
from tests.support.paged_runner import PagedRunner, load_tiny
from tests.support.tiny_models import write_multimodal, write_mxfp4, write_renamed, write_tiny_model
from tests.support.tiny_mtp import write_mimo

TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit, in fp32."""

NUM_TOKENS = 33
LENGTHS = (1, 37, 100)

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}

PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}

ODD = {"num_attention_heads": 9, "num_key_value_heads": 3}
"""Odd numbers of heads."""

TWO_KINDS = {"layer_types": ["full_attention", "sliding_attention"]}

ROPES = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "llama3": LLAMA3,
    "linear": LINEAR,
    "yarn": YARN,
}


def _cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every group size with every rope, spread over the families; flags so that all their pairs occur."""
    for index, (rope, group) in enumerate(itertools.product(ROPES, (1, 2, 4, 8))):
        family = DENSE[(index + index // 4) % 2]
        options: dict[str, Any] = {"rope_parameters": ROPES[rope], "num_attention_heads": 8, "head_dim": 32}
        options["num_key_value_heads"] = 8 // group
        options["tie_word_embeddings"] = bool(index // 2 % 2)
        options["attention_bias"] = index % 3 == 0
        if family == "llama":
            options["mlp_bias"] = index % 3 == 1
        if index % 4 in (0, 3):
            options["max_shard_size"] = "100KB"
        yield family, options
    for index, group in enumerate((1, 2, 3, 4)):  # value heads to a key head
        options = {"linear_num_key_heads": 2, "linear_num_value_heads": 2 * group}
        options |= {"linear_key_head_dim": (16, 32)[index % 2], "linear_value_head_dim": (16, 48)[index // 2]}
        options["layer_types"] = [KINDS[letter] for letter in HYBRID_LAYERS[index]]
        options["num_hidden_layers"] = len(HYBRID_LAYERS[index])
        options["tie_word_embeddings"] = index == 1
        family = ("qwen3_5", "qwen3_5_moe", "qwen3_next", "qwen3_5")[index]
        yield family, options | ({"max_shard_size": "100KB"} if index == 2 else {})
    yield "qwen3_5", {"num_hidden_layers": 5, "layer_types": [KINDS[letter] for letter in "FLLFL"]}
    yield "qwen3_next", {"linear_num_value_heads": 2, "linear_value_head_dim": 16}
    yield "multimodal qwen3_5", {"linear_num_value_heads": 6}
    yield "multimodal qwen3_5_moe", {"layer_types": [KINDS[letter] for letter in "LFLF"]}
    yield "llama", {"hidden_size": 40, "intermediate_size": 50, "vocab_size": 97}
    yield "qwen3", {"rope_parameters": {**YARN, "truncate": False, "attention_factor": 1.2, "beta_fast": 16.0}}
    yield "mimo", {"num_hidden_layers": 3}
    yield "qwen3_moe", {"tie_word_embeddings": True}
    yield "qwen3_moe", {"norm_topk_prob": False, "num_experts": 5, "num_experts_per_tok": 5, "max_shard_size": "100KB"}
    yield "qwen3_moe", {"num_hidden_layers": 4, "mlp_only_layers": [0], "decoder_sparse_step": 2, "head_dim": 32}
    yield "qwen3_moe", {"num_hidden_layers": 3, "mlp_only_layers": [1], "attention_bias": True}
    yield "qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1, **ODD}
    yield "mistral", {"head_dim": 32, **ODD}
    yield "phi3", {"rope_parameters": PARTIAL, "head_dim": 32, **ODD}
    yield "gemma3", {"tie_word_embeddings": True, "hidden_size": 72, **ODD}
    yield "olmo3", {"rope_parameters": {"full_attention": YARN, "sliding_attention": ROPES["default"]}}
    yield "gpt_oss", {"swiglu_alpha": 1.3, "hidden_size": 72, **ODD}
    yield "mxfp4 gpt_oss", {}
    yield "deepseek_v3", {"rms_norm_eps": 0.01}
    yield "deepseek_v2", {"num_hidden_layers": 2, "q_lora_rank": None}


def _further_cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Other forms of families that have a case above."""
    yield "llama", {"hidden_size": 72, "tie_word_embeddings": True, **ODD}
    yield "qwen2", {"tie_word_embeddings": True, "max_shard_size": "100KB"}
    yield "qwen3", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1, **ODD}
    yield "mistral", {"sliding_window": None, "tie_word_embeddings": True, "rope_parameters": YARN}
    yield "phi3", {"sliding_window": None, "tie_word_embeddings": True, "max_shard_size": "100KB"}
    yield "gemma3", {"num_hidden_layers": 6, "layer_types": None, "head_dim": 32, "max_shard_size": "100KB"}
    yield "gemma3", {"num_hidden_layers": 2, "sliding_window": 7, "layer_types": ["sliding_attention"] * 2}
    yield "gemma3", {"attention_bias": True, "num_hidden_layers": 2, **TWO_KINDS}
    yield "olmo2", {"tie_word_embeddings": True, "attention_bias": True, "max_shard_size": "100KB"}
    yield "olmo3", {"sliding_window": 7, "num_hidden_layers": 5, "tie_word_embeddings": True}
    yield "olmo2", {"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 96}
    yield "gpt_oss", {"layer_types": ["full_attention", "sliding_attention"], "num_hidden_layers": 2, "head_dim": 64}
    yield "gpt_oss", {"num_experts_per_tok": 1, "tie_word_embeddings": True, "max_shard_size": "100KB"}
    yield "mxfp4 gpt_oss", {"intermediate_size": 64, "num_local_experts": 5, "sliding_window": 7, **ODD}
    yield "multimodal gemma3", {"num_hidden_layers": 2, "tie_word_embeddings": True, **TWO_KINDS}
    yield "renamed gemma3", {"tie_word_embeddings": True}
    yield "deepseek_v3", {"q_lora_rank": None, "n_group": 1, "topk_group": 1, "rope_parameters": ROPES["default"]}
    yield "deepseek_v3", {"rope_interleave": False, "norm_topk_prob": False, "max_shard_size": "100KB"}
    yield "deepseek_v3", {"first_k_dense_replace": 0, "tie_word_embeddings": True, "rope_parameters": YARN}
    yield "deepseek_v3", {"num_attention_heads": 20, "num_key_value_heads": 20, "n_shared_experts": 1}
    yield "deepseek_v2", {"topk_method": "greedy", "first_k_dense_replace": 3, "max_shard_size": "100KB"}
    yield "deepseek_v2", {"topk_method": "greedy", "routed_scaling_factor": 1.0, "tie_word_embeddings": True}


DENSE = ("llama", "qwen3")
FAMILIES = (
    *DENSE,
    "qwen2",
    "mistral",
    "phi3",
    "gemma3",
    "olmo2",
    "olmo3",
    "gpt_oss",
    "qwen3_moe",
    "deepseek_v2",
    "deepseek_v3",
    "mimo",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_next",
)
ENCODERS = ("bert", "modernbert", "roberta")
"""Their cases are in test_encoders.py."""
PARTS = ("multimodal qwen3_5", "multimodal qwen3_5_moe", "multimodal gemma3", "renamed gemma3")
"""Families that are released as a part of something larger."""
FORMS = (*PARTS, "mxfp4 gpt_oss")
"""Families that are released in other forms than transformers writes."""
WRITERS = {
    "mimo": lambda directory, **options: write_mimo(directory, **options)[0],
    **{form: partial(write_multimodal, family=form.split()[1]) for form in PARTS},
    "renamed gemma3": write_renamed,
    "mxfp4 gpt_oss": write_mxfp4,
}
"""Writers of families that transformers does not save in the released form."""
KINDS = {"L": "linear_attention", "F": "full_attention"}
HYBRID_LAYERS = ("LLLF", "FLLFL", "LLLF", "LF")
"""Linear and full attention in the order of layers."""
CASES = list(_cases())
FURTHER = [pytest.param(*case, marks=pytest.mark.slow) for case in _further_cases()]


def test_every_model_file_has_its_cases():
    in_anothers_file = {"qwen3_5_moe"}
    decoders = [name for name in plugins.names(outrider.models) if name not in ENCODERS]
    assert decoders == sorted(set(FAMILIES) - in_anothers_file)
    families = {family for family, _ in [*_cases(), *_further_cases()]}
    assert families == {*FAMILIES, *FORMS}


@pytest.mark.parametrize(
    ("family", "options"), [*CASES, *FURTHER], ids=lambda value: value if isinstance(value, str) else ""
)
def test_logits_and_greedy_tokens(tmp_path, family, options):
    write = WRITERS.get(family, partial(write_tiny_model, family=family))
    oracle = write(tmp_path, **options)
    is_sharded = (tmp_path / "model.safetensors.index.json").exists()
    assert is_sharded == ("max_shard_size" in options)
    model = load_tiny(tmp_path)
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, model.config.vocab_size, (n,), generator=generator).tolist() for n in LENGTHS]

    runner = PagedRunner(model)
    hidden, places = runner.feed(list(enumerate(prompts)))
    logits = runner.logits(hidden)
    assert logits.dtype == torch.float32
    for prompt, place in zip(prompts, places, strict=True):
        with torch.no_grad():
            expected = oracle(torch.tensor([prompt])).logits[0]
        assert expected.std() > 0.3, "logits are too flat to tell formulas apart"
        assert (logits[place] - expected).abs().max() < TOLERANCE * expected.abs().max()

    outputs = PagedRunner(model).greedy(prompts, NUM_TOKENS)
    for prompt, output in zip(prompts, outputs, strict=True):
        expected = oracle.generate(torch.tensor([prompt]), max_new_tokens=NUM_TOKENS, eos_token_id=None, pad_token_id=0)
        assert output == expected[0, len(prompt) :].tolist()
