"""Every attention backend of the folder that a CPU can run computes attention; a new file is tested automatically.

A backend that no CPU can run is listed as skipped, with its own reason; `tests/gpu/test_backends.py` runs it.
"""

import pytest
import torch

from outrider.attention import backends as package
from outrider.attention.base import AttentionBackend
from outrider.attention.caches.latent import Latent
from outrider.attention.caches.paged_kv import PagedKV
from outrider.core import plugins
from outrider.kernels import load_kernels
from outrider.platforms.base import select_platform

from .backend_check import check_formula, check_invariance, check_latent

CPU = select_platform("cpu")
SPEC = PagedKV(num_kv_heads=2, head_dim=32, value_dim=32, dtype=torch.float32)


@pytest.fixture(params=plugins.names(package))
def backend(request: pytest.FixtureRequest) -> AttentionBackend:
    """Each backend of the folder, on the CPU."""
    made = plugins.find(package, request.param, what="backend").Backend
    reason = made.refuses(SPEC, CPU)
    if reason is not None:
        pytest.skip(f"{request.param} does not run on a CPU: {reason}")
    return made(load_kernels(CPU.kernel_stack))


def test_it_computes_attention(backend: AttentionBackend) -> None:
    check_formula(backend, SPEC, CPU.device)


def test_a_token_has_the_same_bits_in_every_batch(backend: AttentionBackend) -> None:
    if not backend.is_exact:
        pytest.skip(f"{backend.name} does not promise it")
    check_invariance(backend, SPEC, CPU.device)


def test_it_attends_over_latent_rows_or_refuses_them(backend: AttentionBackend) -> None:
    spec = Latent(rank=48, rope_size=16, dtype=torch.float32)
    if type(backend).refuses(spec, CPU) is None:
        check_latent(backend, spec, CPU.device)


class _Wrong(AttentionBackend):
    """Attention of which one thing is wrong, in the class attribute `fault`."""

    name, is_exact, fault = "wrong", True, ""

    @classmethod
    def refuses(cls, spec, platform):
        return None

    def attend(self, q, cache, batch, metadata, *, scale, window=None, sinks=None):
        changes = {"scale": {"scale": scale * 1.001}, "window": {"window": None}, "sinks": {"sinks": None}}
        options = {"scale": scale, "window": window, "sinks": sinks} | changes.get(self.fault, {})
        out = super().attend(q, cache, batch, metadata, **options)
        return torch.nextafter(out, out + 1) if self.fault == "batch" and batch.num_tokens < 5 else out


@pytest.mark.parametrize("fault", ["scale", "window", "sinks", "batch"])
def test_a_wrong_backend_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Wrong, "fault", fault)
    check, message = (check_formula, "relative RMS") if fault != "batch" else (check_invariance, "changed")
    with pytest.raises(AssertionError, match=message):
        check(_Wrong(load_kernels(CPU.kernel_stack)), SPEC, CPU.device)
