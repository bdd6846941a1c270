"""Runs the check of a model: its kernels first, then the whole engine."""

import time
from typing import Any

from outrider.core.config import engine_config
from outrider.engine.kernel_calls import limits_of, recorded_calls
from outrider.engine.start_check import verdict_key
from outrider.invariance.check import check_kernels
from outrider.invariance.memory import KernelVerdict, keep_verdict
from outrider.llm import LLM
from outrider.loading.model_source import with_local_files
from outrider.models import read_model_config
from outrider.verify.engine_check import check_engine
from outrider.verify.verdict import Verdict

_KERNEL_SECONDS = 20.0
_ALONE_SECONDS = 20.0
"""Together with the crowds that follow, a check takes about a minute at most, compiling aside."""
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1, "prompt_lookup_max": 3}
"""Drafter for models that were given none: it needs no weights."""


def verify(
    model: str, *, speculative_config: dict[str, Any] | None = None, quick: bool = False, **options: Any
) -> Verdict:
    """Check a model on this device. `options`: as of `LLM`. `quick`: the short form, of kernels only.

    Where an engine checks its kernels at its start, this verdict replaces the one that was kept.
    """
    llm = _open(model, speculative_config, options)
    engine = llm.engine
    begin = time.monotonic()
    make_request = engine.pooling.request if engine.pooling is not None else engine.admission.request
    calls = recorded_calls(engine.worker, make_request)
    kernels = check_kernels(calls, limits_of(engine.worker), seconds=_KERNEL_SECONDS, is_quick=quick)
    runs = [] if quick else check_engine(llm, seconds=_ALONE_SECONDS)
    worker = engine.worker
    verdict = Verdict(
        model=model,
        platform={**worker.platform.key(worker.dtype), "attention_backend": worker.selection.backend.name},
        device=worker.platform.summary,
        is_quick=quick,
        kernels=kernels,
        engine=runs,
        seconds=time.monotonic() - begin,
    )
    if worker.platform.is_checked_at_start:
        found = KernelVerdict(passes=verdict.passes, is_quick=quick, differences=tuple(verdict.differences))
        keep_verdict(verdict_key(worker), found)
    return verdict


def _open(model: str, speculative: dict[str, Any] | None, options: dict[str, Any]) -> LLM:
    """An engine with digests and a drafter, or one that pools, which has neither."""
    config = with_local_files(engine_config(model, **options))
    options = options | {"skip_tokenizer_init": True}
    if read_model_config(config.model, runner=config.runner).pooler is None:
        options |= {"logits_digest": True, "speculative_config": speculative or NGRAM}
    return LLM(model, **options)
