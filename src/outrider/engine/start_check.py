"""The check of kernels at the start of an engine, on devices where the project has not tested them.

It runs once for each device, versions and model, and its verdict is kept (`invariance/memory.py`).
"""

import hashlib
import logging
import time
from collections.abc import Callable

from outrider.core.request import Request
from outrider.core.version import VERSION
from outrider.engine.kernel_calls import limits_of, recorded_calls
from outrider.invariance.check import check_kernels
from outrider.invariance.memory import KernelVerdict, keep_verdict, read_verdict
from outrider.kernels import describe_stacks
from outrider.runtime.worker import Worker

_log = logging.getLogger(__name__)


def check_at_start(worker: Worker, make_request: Callable[..., Request]) -> KernelVerdict | None:
    """The verdict on this device, from an earlier start or from a check now; None where no check is needed.
    `make_request`: as for `recorded_calls`."""
    if not worker.platform.is_checked_at_start:
        return None
    key = verdict_key(worker)
    verdict = read_verdict(key)
    if verdict is not None:
        return verdict
    begin = time.monotonic()
    calls = recorded_calls(worker, make_request)
    findings = check_kernels(calls, limits_of(worker), seconds=0.0, is_quick=True)
    differences = tuple(f"{finding.kernel}: {said}" for finding in findings for said in finding.differences)
    verdict = KernelVerdict(passes=bool(findings) and not differences, is_quick=True, differences=differences)
    seconds, device = time.monotonic() - begin, worker.platform.summary
    if verdict.passes:
        _log.info("%d kernels were checked on %s in %.1f s: they are exact", len(findings), device, seconds)
    else:
        _log.warning(
            "kernels are not exact on %s, so the engine is not: %s. `outrider verify` says more.", device,
            differences[0] if differences else "none was called",
        )  # fmt: skip
    keep_verdict(key, verdict)
    return verdict


def verdict_key(worker: Worker) -> dict[str, str]:
    """Everything that a verdict on a worker's kernels depends on."""
    shape = hashlib.sha256(repr(worker.model_config).encode()).hexdigest()[:16]
    return {
        **worker.platform.key(worker.dtype),
        "attention_backend": worker.selection.backend.name,
        "kernels": describe_stacks(worker.kernels),
        "outrider": VERSION,
        "model_config": shape,
    }
