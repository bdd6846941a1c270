"""Engines on the GPU for the tests of this folder: the zoo, and an 8B Llama shape with random weights.

Random weights are scaled so that logits spread over several units: text does not repeat, and a bit that differs shows.
"""

from pathlib import Path
from typing import Any

from outrider import LLM

ROOT = Path(__file__).parents[2]
ZOO = ROOT / "zoo"
ZOO_EOS = 3071
EAGLE3 = {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3}


def make_llama(target: str | Path, **options: Any) -> LLM:
    options = {"max_model_len": 2560, "logits_digest": True, "skip_tokenizer_init": True} | options
    return LLM(str(target), device="cuda", load_format="dummy", **options)
