"""Every attention backend of the folder that this GPU can run computes attention; new files are tested too."""

import pytest
import torch

from outrider.attention import backends as package
from outrider.attention.base import AttentionBackend
from outrider.attention.caches.paged_kv import PagedKV
from outrider.core import plugins
from outrider.kernels import load_kernels
from outrider.platforms.base import select_platform
from tests.attention.backend_check import check_formula, check_invariance

SPEC = PagedKV(num_kv_heads=2, head_dim=64, value_dim=64, dtype=torch.bfloat16)


@pytest.fixture(params=plugins.names(package))
def backend(request: pytest.FixtureRequest) -> AttentionBackend:
    """Each backend of the folder, on this GPU."""
    platform = select_platform("cuda")
    made = plugins.find(package, request.param, what="backend").Backend
    reason = made.refuses(SPEC, platform)
    if reason is not None:
        pytest.skip(f"{request.param} does not run on this GPU: {reason}")
    return made(load_kernels(platform.kernel_stack))


def test_it_computes_attention(backend: AttentionBackend) -> None:
    check_formula(backend, SPEC, torch.device("cuda"))


def test_a_token_has_the_same_bits_in_every_batch(backend: AttentionBackend) -> None:
    if not backend.is_exact:
        pytest.skip(f"{backend.name} does not promise it")
    check_invariance(backend, SPEC, torch.device("cuda"))
