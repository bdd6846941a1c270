"""Conformance checks of the layers' kernels: each against its formula in double precision."""

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from outrider.kernels.interface.clamped import ClampedForm
from tests.kernels.subject import Subject


def check_linear(at: Subject) -> None:
    for num_rows, width, output in ((1, 64, 8), (5, 40, 24), (33, 256, 72), (0, 64, 8)):
        weight = at.kernels.empty_weight(output, width, dtype=at.dtype, device=at.device)
        assert weight.shape == (output, width) and weight.dtype == at.dtype
        x = at.randn(num_rows, width)
        weight.copy_(at.randn(output, width) * width**-0.5)
        bias, exact = at.randn(output), x.double() @ weight.double().t()
        at.close("linear", at.kernels.linear(x, weight), exact)
        at.close("linear with bias", at.kernels.linear(x, weight, bias), exact + bias.double())
        wide = at.kernels.linear(x, weight, out_dtype=torch.float32)
        assert wide.dtype == torch.float32
        at.close("linear to fp32", wide, exact, dtype=torch.float32 if at.dtype == torch.float32 else None)


def check_linear_compilations(at: Subject) -> None:
    for compile_one in at.kernels.linear_compilations(at.dtype, at.device):
        compile_one()
    check_linear(at)


def _norm(x: Tensor, weight: Tensor, eps: float, *, plus_one: bool = False) -> Tensor:
    x = x.double()
    factor = weight.double() + 1 if plus_one else weight.double()
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * factor


FLAGS = ((False, False), (True, False), (False, True))
"""plus_one and casts_last of the norms."""


def check_rms_norm(at: Subject) -> None:
    for shape in ((1, 1), (5, 37), (3, 4, 16), (9, 256)):
        x, weight = at.randn(*shape) * 3, at.randn(shape[-1])
        for plus_one, casts_last in FLAGS:
            ours = at.kernels.rms_norm(x, weight, 1e-5, plus_one=plus_one, casts_last=casts_last)
            at.close(f"rms_norm {shape}", ours, _norm(x, weight, 1e-5, plus_one=plus_one))
    x, weight = at.randn(9, 200)[:, 64:128], at.randn(64)  # q, in rows that hold q, k and v
    at.close("rms_norm of columns", at.kernels.rms_norm(x, weight, 1e-6), _norm(x, weight, 1e-6))


def check_add_rms_norm(at: Subject) -> None:
    x, residual, weight = at.randn(7, 100), at.randn(7, 100), at.randn(100)
    for plus_one, casts_last in FLAGS:
        normed, total = at.kernels.add_rms_norm(x, residual, weight, 1e-6, plus_one=plus_one, casts_last=casts_last)
        at.same("the sum", total, x + residual)
        at.close("the norm of the sum", normed, _norm(x + residual, weight, 1e-6, plus_one=plus_one))


def check_silu_and_mul(at: Subject) -> None:
    for width in (1, 37, 96):
        gate_up = (at.randn(9, 2 * width + 3) * 4)[:, : 2 * width]
        exact = silu(gate_up[:, :width].double()) * gate_up[:, width:].double()
        at.close("silu_and_mul", at.kernels.silu_and_mul(gate_up), exact)


def check_gelu_tanh_and_mul(at: Subject) -> None:
    for width in (1, 37, 96):
        gate_up = (at.randn(9, 2 * width + 3) * 4)[:, : 2 * width]
        gate_up[0, :width] = torch.linspace(-100, 100, width)
        exact = gelu(gate_up[:, :width].double(), approximate="tanh") * gate_up[:, width:].double()
        at.close("gelu_tanh_and_mul", at.kernels.gelu_tanh_and_mul(gate_up), exact)


def check_gate_heads(at: Subject) -> None:
    x, heads = at.randn(7, 3, 16), at.randn(7, 8, 16)
    at.close("gate_heads", at.kernels.gate_heads(x, heads), x.double() * heads[:, 1:6:2].double().sigmoid())


def check_add_gated(at: Subject) -> None:
    x, y, gate = at.randn(7, 37), at.randn(7, 37), at.randn(7, 5, dtype=torch.float32)[:, 4]
    at.close("add_gated", at.kernels.add_gated(x, y, gate), x.double() + gate.double().sigmoid()[:, None] * y.double())


def check_route(at: Subject) -> None:
    logits = at.randn(21, 12, dtype=torch.float32)
    logits[3] = 0.0
    logits[4] = logits[4].round()
    for top_k, is_normalized in ((1, True), (3, True), (5, False)):
        routing = at.kernels.route(logits, top_k=top_k, is_normalized=is_normalized)
        order = torch.sort(logits, dim=1, descending=True, stable=True).indices[:, :top_k]
        at.same("experts", routing.ids, order.int())
        exact = logits.double().softmax(dim=1).gather(1, order)
        exact = exact / exact.sum(dim=1, keepdim=True) if is_normalized else exact
        at.close("weights", routing.weights, exact, dtype=torch.float32)


def check_experts(at: Subject) -> None:
    _check_mixture(at, is_clamped=False)


def check_clamped_experts(at: Subject) -> None:
    _check_mixture(at, is_clamped=True)


def _check_mixture(at: Subject, *, is_clamped: bool) -> None:
    num_experts, width, hidden, top_k, alpha, limit = 6, 40, 64, 3, 1.7, 1.2
    shape = {"dtype": at.dtype, "device": at.device}
    gate_up = at.kernels.empty_expert_weights(num_experts, 2 * width, hidden, **shape)
    down = at.kernels.empty_expert_weights(num_experts, hidden, width, **shape)
    gate_up.copy_(at.randn(*gate_up.shape) * hidden**-0.5)
    down.copy_(at.randn(*down.shape) * width**-0.5)
    gate_up_bias, down_bias = at.randn(num_experts, 2 * width), at.randn(num_experts, hidden)
    form = ClampedForm(gate_up_bias=gate_up_bias, down_bias=down_bias, alpha=alpha, limit=limit)
    for num_tokens in (0, 1, 5, 37):
        x, logits = at.randn(num_tokens, hidden), at.randn(num_tokens, num_experts, dtype=torch.float32)
        routing = at.kernels.route(logits, top_k=top_k, is_normalized=True)
        inner = torch.einsum("th,eih->tei", x.double(), gate_up.double())
        if is_clamped:
            gate, up = (inner + gate_up_bias.double()).chunk(2, dim=2)
            gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
            gated, bias = gate * (alpha * gate).sigmoid() * (up + 1), down_bias.double()
            ours = at.kernels.clamped_experts(x, gate_up, down, routing, form)
        else:
            gated, bias = silu(inner[..., :width]) * inner[..., width:], 0.0
            ours = at.kernels.experts(x, gate_up, down, routing)
        outputs = torch.einsum("tei,ehi->teh", gated, down.double()) + bias
        chosen = outputs.gather(1, routing.ids.long().unsqueeze(2).expand(-1, -1, hidden))
        exact = (chosen * routing.weights.double().unsqueeze(2)).sum(dim=1)
        at.close(f"experts of {num_tokens} tokens", ours, exact)


def _angles(at: Subject, num_positions: int, width: int) -> Tensor:
    angles = at.randn(num_positions, width // 2, dtype=torch.float32)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _rotated(x: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor:
    width = cos_sin.shape[1]
    cos, sin = cos_sin[positions].double()[:, None].chunk(2, dim=2)
    first, second, rest = x.double().split([width // 2, width // 2, x.shape[2] - width], dim=2)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=2)


def check_rotary(at: Subject) -> None:
    for head_dim, width in ((64, 64), (64, 16), (48, 48)):
        x, positions = at.randn(9, 5, head_dim)[:, 1:4], at.integers(9, high=30)
        cos_sin = _angles(at, 30, width)
        at.close("rotary", at.kernels.rotary(x, positions, cos_sin), _rotated(x, positions, cos_sin))


def check_embedding(at: Subject) -> None:
    table, ids = at.randn(53, 24), at.integers(11, high=53)
    at.same("embedding", at.kernels.embedding(ids, table), table[ids])


def _caches(at: Subject, num_heads: int, head_dim: int) -> tuple[Tensor, Tensor]:
    first, second = (at.randn(4, 16, num_heads, head_dim).fill_(float("nan")) for _ in range(2))
    return first, second


def _check_slots(at: Subject, cache: Tensor, slots: Tensor, exact: Tensor) -> None:
    flat = cache.view(-1, *cache.shape[2:])
    at.close("the cache", flat[slots], exact)
    assert int(flat.isnan().all(dim=2).all(dim=1).sum()) == len(flat) - len(slots), "another slot was written"


def check_write_kv(at: Subject) -> None:
    heads, slots = at.randn(6, 5, 16), torch.tensor([63, 16, 33, 34, 48, 17], device=at.device)
    k_cache, v_cache = _caches(at, 2, 16)
    at.kernels.write_kv(heads[:, 1:3], heads[:, 3:], k_cache, v_cache, slots)
    _check_slots(at, k_cache, slots, heads[:, 1:3].double())
    _check_slots(at, v_cache, slots, heads[:, 3:].double())


def check_rotary_and_write_kv(at: Subject) -> None:
    slots, positions = torch.tensor([63, 16, 33, 34, 48, 17], device=at.device), at.integers(6, high=30)
    for width, has_norms, plus_one, has_gates in (
        (64, False, False, False), (64, True, False, False), (64, True, True, False), (16, True, True, True),
        (64, True, False, True),
    ):  # fmt: skip
        num_q = 4
        heads, cos_sin = at.randn(6, (8 if has_gates else 4) + 4, 64), _angles(at, 30, width)
        norms = (at.randn(64), at.randn(64)) if has_norms else None
        k_cache, v_cache = _caches(at, 2, 64)
        ours = at.kernels.rotary_and_write_kv(
            heads, positions, cos_sin, k_cache, v_cache, slots,
            norms=norms, eps=1e-6, plus_one=plus_one, has_gates=has_gates,
        )  # fmt: skip
        q, k, v = (heads[:, : 2 * num_q : 2] if has_gates else heads[:, :num_q]), heads[:, -4:-2], heads[:, -2:]
        if norms is not None:
            q, k = (_norm(x, weight, 1e-6, plus_one=plus_one) for x, weight in zip((q, k), norms, strict=True))
        at.close("q", ours, _rotated(q, positions, cos_sin))
        _check_slots(at, k_cache, slots, _rotated(k, positions, cos_sin))
        _check_slots(at, v_cache, slots, v.double())
