"""Engines on the GPU for the tests of this folder: the zoo, and an 8B Llama shape with random weights.

Random weights are scaled so that logits spread over several units: text does not repeat, and a bit that differs shows.
"""

import json
from pathlib import Path
from typing import Any

from outrider import LLM

ROOT = Path(__file__).parents[2]
ZOO = ROOT / "zoo"
ZOO_EOS = 3071
EAGLE3 = {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3}

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 128001,
}
LLAMA_HEAD = {
    **LLAMA,
    "architectures": ["LlamaForCausalLMEagle3"],
    "num_hidden_layers": 1,
    "draft_vocab_size": 32000,
}


def write_llama(directory: Path) -> tuple[Path, Path]:
    """Directories of configs of the target and of an EAGLE-3 head."""
    for name, config in (("target", LLAMA), ("head", LLAMA_HEAD)):
        (directory / name).mkdir()
        (directory / name / "config.json").write_text(json.dumps(config))
    return directory / "target", directory / "head"


def make_llama(target: Path, **options: Any) -> LLM:
    options = {"max_model_len": 2560, "logits_digest": True, "skip_tokenizer_init": True} | options
    return LLM(str(target), device="cuda", load_format="dummy", **options)
