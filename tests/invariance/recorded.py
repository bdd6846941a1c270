"""Models whose calls of kernels are recorded for the tests; together they call every function that a CPU has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from outrider import LLM
from outrider.engine.kernel_calls import recorded_calls
from outrider.invariance.calls import Call
from outrider.invariance.form import Limits
from tests.support.pooling_models import write_embedder
from tests.support.quantised_models import CONFIGS, quantise
from tests.support.tiny_encoders import write_tiny_encoder
from tests.support.tiny_models import write_mxfp4, write_tiny_model

ZOO = Path(__file__).parents[2] / "zoo"
EAGLE3 = {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3}

SMALL = Limits(max_tokens=80, max_samples=24, max_length=200, num_elements=1 << 14, num_drafts=3)
"""Cases that are quick to run."""


def record(model: Path, **options: Any) -> list[Call]:
    """The calls of an engine."""
    llm = LLM(str(model), skip_tokenizer_init=True, **options)
    engine = llm.engine
    if engine.pooling is not None:
        return recorded_calls(engine.worker, engine.pooling.request)
    return recorded_calls(engine.worker, engine.admission.request)


def record_tiny() -> list[Call]:
    return record(ZOO / "tiny", speculative_config=EAGLE3, logits_digest=True)


def record_hybrid() -> list[Call]:
    return record(ZOO / "tiny-hybrid", logits_digest=True)


def _family(family: str, **overrides: Any) -> Callable[[Path], list[Call]]:
    def run(directory: Path) -> list[Call]:
        write_tiny_model(directory, family, **overrides)
        return record(directory)

    return run


def _quantised(name: str) -> Callable[[Path], list[Call]]:
    def run(directory: Path) -> list[Call]:
        write_tiny_model(directory, "qwen3_moe", hidden_size=128, intermediate_size=128, moe_intermediate_size=128)
        quantise(directory, CONFIGS[name])
        return record(directory)

    return run


def _mxfp4(directory: Path) -> list[Call]:
    write_mxfp4(directory)
    return record(directory)


def _encoder(family: str, **options: Any) -> Callable[[Path], list[Call]]:
    def run(directory: Path) -> list[Call]:
        write_tiny_encoder(directory, family, **options)
        return record(directory, runner="pooling")

    return run


def _mean(directory: Path) -> list[Call]:
    write_embedder(directory, pooling="mean")
    return record(directory, runner="pooling")


MEMBERS: dict[str, Callable[[Path], list[Call]]] = {
    "gemma3": _family("gemma3"),
    "qwen3_next": _family("qwen3_next"),
    "gpt_oss": _family("gpt_oss"),
    "deepseek_v3": _family("deepseek_v3"),
    "bert": _encoder("bert"),
    "bert classifier": _encoder("bert", num_labels=3),
    "modernbert": _encoder("modernbert"),
    "mean": _mean,
    "mxfp4": _mxfp4,
    **{name: _quantised(name) for name in ("fp8-dynamic", "fp8-block", "int8", "w4a16")},
}
"""Models beyond those of the zoo."""
