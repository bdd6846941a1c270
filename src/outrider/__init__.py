"""Outrider: an inference engine for large language models whose speculative decoding is exact.

A public name is imported when it is first used, so `import outrider.core.errors` does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from outrider.core.version import VERSION

if TYPE_CHECKING:
    from outrider.async_llm import AsyncLLM
    from outrider.core.errors import (
        CheckpointError,
        ConfigError,
        EngineDeadError,
        OutriderError,
        RequestError,
        UnsupportedError,
    )
    from outrider.core.outputs import CompletionOutput, Logprob, OutputDelta, RequestOutput, SpeculationStats
    from outrider.core.pooling import (
        ClassificationRequestOutput,
        EmbeddingRequestOutput,
        PairOptions,
        PoolingParams,
        PoolingRequestOutput,
        ScoringRequestOutput,
    )
    from outrider.core.sampling_params import SamplingParams, StructuredOutputsParams
    from outrider.llm import LLM

__version__ = VERSION

__all__ = [
    "LLM",
    "AsyncLLM",
    "CheckpointError",
    "ClassificationRequestOutput",
    "CompletionOutput",
    "ConfigError",
    "EmbeddingRequestOutput",
    "EngineDeadError",
    "Logprob",
    "OutputDelta",
    "OutriderError",
    "PairOptions",
    "PoolingParams",
    "PoolingRequestOutput",
    "RequestError",
    "RequestOutput",
    "SamplingParams",
    "ScoringRequestOutput",
    "SpeculationStats",
    "StructuredOutputsParams",
    "UnsupportedError",
]

_MODULES = {
    "outrider.async_llm": ("AsyncLLM",),
    "outrider.core.errors": (
        "CheckpointError",
        "ConfigError",
        "EngineDeadError",
        "OutriderError",
        "RequestError",
        "UnsupportedError",
    ),
    "outrider.core.outputs": ("CompletionOutput", "Logprob", "OutputDelta", "RequestOutput", "SpeculationStats"),
    "outrider.core.pooling": (
        "ClassificationRequestOutput",
        "EmbeddingRequestOutput",
        "PairOptions",
        "PoolingParams",
        "PoolingRequestOutput",
        "ScoringRequestOutput",
    ),
    "outrider.core.sampling_params": ("SamplingParams", "StructuredOutputsParams"),
    "outrider.llm": ("LLM",),
}
"""Module to the public names that it defines: the imports above, for a running program."""

_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # a type checker that saw this function would accept every name

    def __getattr__(name: str) -> Any:
        """Import a public name on first use and keep it."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """All names of the module, those not imported yet too."""
    return sorted({*globals(), *__all__})
