"""Paged attention: against torch's own, against the written-out formula, and bit by bit over every batching."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from outrider.kernels.reference import attention as kernel
from tests.kernels.paged_case import PagedCase

TOLERANCE = 2e-6
"""Relative RMS error in fp32."""


def _expected(
    case: PagedCase, request: int, *, kv_start: int = 0, window: int | None = None, sinks: Tensor | None = None
) -> Tensor:
    """[length, num_heads, head_dim] in fp64, one token and head at a time."""
    q, k, v = (tensors[request].double() for tensors in (case.q, case.k, case.v))
    group = q.shape[1] // k.shape[1]
    out = torch.zeros_like(q)
    for t in range(q.shape[0]):
        first = max(kv_start, t + 1 - window if window else 0)
        for head in range(q.shape[1]):
            logits = k[first : t + 1, head // group] @ q[t, head] * q.shape[-1] ** -0.5
            if sinks is not None:
                logits = torch.cat([logits, sinks[head].double()[None]])
            weights = logits.softmax(0)[: max(0, t + 1 - first)]
            out[t, head] = weights @ v[first : t + 1, head // group]
    return out


def _error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "head_dim", "block_size"),
    [
        (2, 2, 16, 16),
        (4, 2, 64, 32),
        (8, 2, 128, 64),
        (8, 1, 256, 16),
        (16, 1, 48, 16),
        (3, 1, 32, 16),
        (12, 2, 16, 16),
        (40, 2, 16, 16),
    ],
)
def test_prefill_equals_scaled_dot_product_attention(num_heads, num_kv_heads, head_dim, block_size):
    case = PagedCase(
        [1, 70, 150], num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, block_size=block_size
    )
    outs = case.attend([(i, 0, n) for i, n in enumerate(case.lengths)])
    for request, out in enumerate(outs):
        q, k, v = (tensors[request].double().transpose(0, 1)[None] for tensors in (case.q, case.k, case.v))
        expected = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
        assert _error(out, expected) < TOLERANCE


@pytest.mark.parametrize("has_sinks", [False, True], ids=["", "sinks"])
@pytest.mark.parametrize(("kv_start", "window"), [(0, None), (1, None), (0, 1), (0, 20), (5, 64), (70, None)])
def test_what_a_token_sees_is_the_formula(kv_start, window, has_sinks):
    case = PagedCase([100, 30], num_heads=6, num_kv_heads=2)
    sinks = torch.linspace(-3, 9, 6) if has_sinks else None
    options = {"kv_start": kv_start, "window": window, "sinks": sinks}
    for request, out in enumerate(case.attend([(0, 0, 100), (1, 0, 30)], **options)):
        if kv_start < case.lengths[request]:
            assert _error(out[kv_start:], _expected(case, request, **options)[kv_start:]) < TOLERANCE
        assert torch.equal(out[:kv_start], torch.zeros_like(out[:kv_start])), "a token that sees nothing gives zeros"


def _same(case: PagedCase, whole: list[Tensor], rows: list[tuple[int, int, int]], **options: object) -> None:
    for (request, start, stop), out in zip(rows, case.attend(rows, **options), strict=True):
        assert torch.equal(out, whole[request][start:stop]), (rows, options)


@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "head_dim"),
    [(2, 2, 16), (4, 2, 32), (8, 2, 64), (8, 1, 16), (3, 1, 16), (10, 2, 16), (6, 1, 48), (20, 1, 16)],
)
def test_a_token_is_the_same_however_it_comes(threads, num_heads, num_kv_heads, head_dim):
    case = PagedCase([140, 66, 5, 1], num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim)
    whole = case.attend([(i, 0, n) for i, n in enumerate(case.lengths)])
    for start in range(0, 140, 13):
        _same(case, whole, [(0, start, min(start + 13, 140))])
    for position in (0, 63, 64, 139):
        _same(case, whole, [(0, position, position + 1)])
    _same(case, whole, [(3, 0, 1), (1, 60, 66), (0, 100, 104), (2, 3, 5)])
    _same(case, whole, [(1, 65, 66)], extra_bound=500)
    _same(case, whole, [(0, 62, 66), (2, 4, 5)], num_padding=11)
    assert torch.equal(case.padding, torch.zeros_like(case.padding))


@pytest.mark.parametrize(("kv_start", "window"), [(1, None), (0, 20)])
def test_windows_and_starts_are_the_same_however_they_come(kv_start, window):
    case = PagedCase([140, 66])
    options = {"kv_start": kv_start, "window": window, "sinks": torch.tensor([0.0, 2.0, -1.0, 30.0])}
    whole = case.attend([(0, 0, 140), (1, 0, 66)], **options)
    _same(case, whole, [(1, 60, 66), (0, 130, 133)], **options)
    for start in range(0, 140, 19):
        _same(case, whole, [(0, start, min(start + 19, 140))], **options)


def test_a_long_context_is_the_same_under_every_bound():
    case = PagedCase([1500, 700])
    whole = case.attend([(0, 1300, 1500), (1, 500, 700)])
    for (request, start), extra in itertools.product([(0, 1300), (0, 1450), (1, 500), (1, 650)], (0, 100, 900)):
        stop = start + 3
        (out,) = case.attend([(request, start, stop)], extra_bound=extra)
        assert torch.equal(out, whole[request][start - (1300, 500)[request] :][:3])


def test_slots_that_are_not_seen_do_not_matter():
    case = PagedCase([100, 40])
    finite = case.attend([(0, 50, 51), (1, 20, 23)], known=[100, 40])
    poisoned = case.attend([(0, 50, 51), (1, 20, 23)], known=[51, 23])
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(finite, poisoned, strict=True))


@pytest.mark.parametrize("size", [1, 64 * 16 * 2, 64 * 16 * 2 * 3])
def test_the_size_of_the_buffer_changes_no_result(monkeypatch, size):
    case = PagedCase([300, 66, 130])
    rows = [(0, 290, 300), (1, 0, 66), (2, 129, 130)]
    expected = case.attend(rows, known=case.lengths)
    monkeypatch.setattr(kernel, "_BUFFER", size)
    assert all(torch.equal(a, b) for a, b in zip(case.attend(rows, known=case.lengths), expected, strict=True))


def test_half_precision_is_computed_in_fp32():
    case = PagedCase([90, 20], dtype=torch.bfloat16)
    for request, out in enumerate(case.attend([(0, 0, 90), (1, 0, 20)])):
        assert out.dtype == torch.bfloat16
        assert _error(out, _expected(case, request)) < 4e-3


def test_extreme_logits_stay_finite():
    case = PagedCase([80])
    case.q[0] *= 1e4
    (out,) = case.attend([(0, 0, 80)])
    assert _error(out, _expected(case, 0)) < TOLERANCE
