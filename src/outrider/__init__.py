"""Outrider: an inference engine for large language models whose speculative decoding is exact."""

from outrider.async_llm import AsyncLLM
from outrider.core.errors import CheckpointError, ConfigError, OutriderError, RequestError, UnsupportedError
from outrider.core.outputs import CompletionOutput, Logprob, OutputDelta, RequestOutput, SpeculationStats
from outrider.core.sampling_params import SamplingParams
from outrider.llm import LLM

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AsyncLLM",
    "CheckpointError",
    "CompletionOutput",
    "ConfigError",
    "Logprob",
    "OutputDelta",
    "OutriderError",
    "RequestError",
    "RequestOutput",
    "SamplingParams",
    "SpeculationStats",
    "UnsupportedError",
]
