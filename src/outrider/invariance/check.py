"""Runs the cases of recorded calls, within a time."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch

from outrider.invariance.calls import Call, recording
from outrider.invariance.form import Form, Limits
from outrider.invariance.rules import INTEGERS, ROWS, forms_of, title_of
from outrider.kernels import Kernels


@dataclass(slots=True)
class Finding:
    """Result of the checks of one kernel."""

    kernel: str
    stack: str
    num_cases: int = 0
    """Kinds of calls: shapes, dtypes and flags."""
    num_forms: int = 0
    num_left_out: int = 0
    """Forms for which no time was left."""
    differences: list[str] = field(default_factory=list)

    @property
    def passes(self) -> bool:
        return not self.differences


def record_kernels(kernel_sets: Sequence[Kernels]) -> AbstractContextManager[list[Call]]:
    """Inside this context all calls of kernels are recorded that `check_kernels` can check."""
    return recording(kernel_sets, ROWS, whole=frozenset(INTEGERS))


@torch.inference_mode()
def check_kernels(
    calls: Sequence[Call],
    limits: Limits,
    *,
    seconds: float,
    is_quick: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> list[Finding]:
    """Check every kernel that was called. The quick forms of each case always run; the others, in turn, until
    `seconds` have passed. A case ends with its first difference."""
    end = clock() + seconds
    findings: dict[str, Finding] = {}
    later: list[tuple[Finding, list[Form]]] = []
    for call in calls:
        if not (title := title_of(call)):
            continue
        origin = call.kernels.origins.get(call.name, call.kernels.origins["linear"])
        finding = findings.setdefault(title, Finding(title, origin))
        finding.num_cases += 1
        forms: list[Form] = []
        said = _said(lambda call=call, forms=forms: forms.extend(forms_of(call, calls, limits)))  # type: ignore[misc]
        if said:
            finding.differences.append(f"{_shape(call)}: {said}")
        if _run(finding, [form for form in forms if form.is_quick], call) and not is_quick:
            later.append((finding, [form for form in forms if not form.is_quick]))
    while any(forms for _, forms in later):
        for finding, forms in later:
            if not forms:
                continue
            if clock() >= end:
                finding.num_left_out += len(forms)
                forms.clear()
            elif not _run(finding, [forms.pop(0)], None):
                forms.clear()
    return sorted(findings.values(), key=lambda finding: finding.kernel)


def _run(finding: Finding, forms: Sequence[Form], call: Call | None) -> bool:
    """Run forms up to the first that differs; False if one did."""
    for form in forms:
        finding.num_forms += 1
        if said := _said(form.run):
            shape = f"{_shape(call)}, " if call is not None else ""
            finding.differences.append(f"{shape}{form.name}: {said}")
            return False
    return True


def _said(run: Callable[[], str | None]) -> str | None:
    """The difference that a form finds; a kernel that fails has not given the same bits."""
    try:
        return run()
    except Exception as error:
        return f"it failed: {type(error).__name__}: {error}"


def _shape(call: Call) -> str:
    """The tensors of a call, for a person to read."""
    tensors = ((name, value) for name, value in call.arguments.items() if isinstance(value, torch.Tensor))
    return " ".join(f"{name}{list(value.shape)}" for name, value in list(tensors)[:2])
