"""The options of `LLM` and `AsyncLLM` as a type, so that an editor lists them and a type checker reads their values.

`core/config.py` has their meaning, defaults and checks; a test holds both to the same names and types.
"""

from collections.abc import Mapping
from typing import Any, TypedDict


class EngineOptions(TypedDict, total=False):
    """Fields of `EngineConfig`, save the model; `speculative_config` as a dict. Each may be left out."""

    runner: str
    revision: str | None
    hf_token: str | bool | None
    download_dir: str | None
    device: str
    dtype: str
    seed: int
    max_model_len: int | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    block_size: int
    num_gpu_blocks_override: int | None
    gpu_memory_utilization: float
    enforce_eager: bool
    enable_prefix_caching: bool
    attention_backend: str
    load_format: str
    quantization: str | None
    generation_config: str
    speculative_config: Mapping[str, Any] | None
    overlap_depth: int
    logits_digest: bool

    tensor_parallel_size: int
    """1, like the three below at their neutral values: they are refused by name otherwise."""
    data_parallel_size: int
    enable_expert_parallel: bool
    limit_mm_per_prompt: Mapping[str, Any] | None
