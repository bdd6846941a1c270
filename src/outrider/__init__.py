"""Outrider: an inference engine for large language models whose speculative decoding is exact."""

from outrider.async_llm import AsyncLLM
from outrider.core.errors import CheckpointError, ConfigError, OutriderError, RequestError, UnsupportedError
from outrider.core.outputs import CompletionOutput, Logprob, OutputDelta, RequestOutput, SpeculationStats
from outrider.core.sampling_params import SamplingParams, StructuredOutputsParams
from outrider.core.version import VERSION
from outrider.llm import LLM

__version__ = VERSION

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
    "StructuredOutputsParams",
    "UnsupportedError",
]
