"""Products with quantised weights, in plain PyTorch. Weights are expanded to fp32 for each product, exactly.

The sum of a row's products runs over tiles of 16 rows, as in `linear`.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from outrider.kernels.interface.clamped import ClampedForm
from outrider.kernels.interface.quantised import QuantisedMatrix
from outrider.kernels.reference.experts import gate_of, mixture
from outrider.kernels.reference.linear import empty_weight, linear
from outrider.kernels.reference.routing import Routing

GROUP = 128
"""Columns of one scale in `linear_fp8_block`."""

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""Values of 4-bit floats, by their bits."""

_E4M3_LARGEST, _INT8_LARGEST = 448.0, 127.0
_SMALLEST = 1e-12
"""The least magnitude that a scale is made for; zeros have a scale, too."""


def empty_fp8(output_size: int, input_size: int, *, device: torch.device, num_experts: int | None = None) -> Tensor:
    """[output_size, input_size] or [num_experts, output_size, input_size] e4m3, by rows."""
    return _empty(num_experts, output_size, input_size, dtype=torch.float8_e4m3fn, device=device)


def linear_fp8(
    x: Tensor, weight: QuantisedMatrix, bias: Tensor | None = None, *, out_dtype: torch.dtype | None = None
) -> Tensor:
    """x [M, K], weight [N, K] e4m3 with scales [N] -> [M, N]."""
    found = _quantised(x, weight.input_scale, torch.float8_e4m3fn, _E4M3_LARGEST)
    return _finished(linear(found[0], _expanded(weight.data)), found[1], weight, bias, out_dtype or x.dtype)


def experts_fp8(x: Tensor, gate_up: QuantisedMatrix, down: QuantisedMatrix, routing: Routing) -> Tensor:
    """x [M, K], gate_up [E, 2I, K], down [E, K, I] -> [M, K]."""
    return _experts(linear_fp8, x, gate_up, down, routing)


def empty_int8(output_size: int, input_size: int, *, device: torch.device, num_experts: int | None = None) -> Tensor:
    """[output_size, input_size] or [num_experts, output_size, input_size] int8, by rows."""
    return _empty(num_experts, output_size, input_size, dtype=torch.int8, device=device)


def linear_int8(
    x: Tensor, weight: QuantisedMatrix, bias: Tensor | None = None, *, out_dtype: torch.dtype | None = None
) -> Tensor:
    """x [M, K], weight [N, K] int8 with scales [N] -> [M, N]. Sums of whole numbers below 2^53 are exact in float64."""
    found, scales = _quantised(x, weight.input_scale, torch.int8, _INT8_LARGEST)
    total = (found.double() @ weight.data.double().t()).float()
    return _finished(total, scales, weight, bias, out_dtype or x.dtype)


def experts_int8(x: Tensor, gate_up: QuantisedMatrix, down: QuantisedMatrix, routing: Routing) -> Tensor:
    """x [M, K], gate_up [E, 2I, K], down [E, K, I] -> [M, K]."""
    return _experts(linear_int8, x, gate_up, down, routing)


def empty_int4(output_size: int, input_size: int, *, device: torch.device, num_experts: int | None = None) -> Tensor:
    """[output_size, input_size / 2] or [num_experts, output_size, input_size / 2] uint8, by rows."""
    return _empty(num_experts, output_size, input_size // 2, dtype=torch.uint8, device=device)


def linear_int4(
    x: Tensor, weight: QuantisedMatrix, bias: Tensor | None = None, *, out_dtype: torch.dtype | None = None
) -> Tensor:
    """x [M, K], weight [N, K / 2] with scales, and zeros, [N, groups] -> [M, N]."""
    assert weight.scales is not None, "a weight of this format has scales"
    values = _halves(weight.data)
    if weight.order is None:
        size = values.shape[1] // weight.scales.shape[1]
        groups = torch.arange(values.shape[1], device=values.device) // size
    else:
        groups = weight.order.long()
    zeros = 8 if weight.zeros is None else weight.zeros.index_select(1, groups).float()
    dense = (values.float() - zeros) * weight.scales.index_select(1, groups)
    return linear(x, _laid_out(dense, x.dtype), bias, out_dtype=out_dtype)


def experts_int4(x: Tensor, gate_up: QuantisedMatrix, down: QuantisedMatrix, routing: Routing) -> Tensor:
    """x [M, K], gate_up [E, 2I, K], down [E, K, I] -> [M, K]."""
    return _experts(linear_int4, x, gate_up, down, routing)


def linear_mxfp4(
    x: Tensor, weight: QuantisedMatrix, bias: Tensor | None = None, *, out_dtype: torch.dtype | None = None
) -> Tensor:
    """x [M, K], weight [N, K / 2] with exponents [N, K / 32] uint8 -> [M, N]."""
    assert weight.scales is not None, "a weight of this format has scales"
    values = torch.tensor(E2M1, device=x.device)[_halves(weight.data).long()]
    exponents = weight.scales.int()
    scales = torch.where(exponents == 0, 1 << 22, exponents << 23).view(torch.float32)  # 2 ^ (exponent - 127), exactly
    dense = values * scales.repeat_interleave(32, dim=1)
    return linear(x, _laid_out(dense, x.dtype), bias, out_dtype=out_dtype)


def experts_mxfp4(x: Tensor, gate_up: QuantisedMatrix, down: QuantisedMatrix, routing: Routing) -> Tensor:
    """x [M, K], gate_up [E, 2I, K], down [E, K, I] -> [M, K]."""
    return _experts(linear_mxfp4, x, gate_up, down, routing)


def clamped_experts_mxfp4(
    x: Tensor, gate_up: QuantisedMatrix, down: QuantisedMatrix, routing: Routing, form: ClampedForm
) -> Tensor:
    """x [M, K], gate_up [E, 2I, K], down [E, K, I] -> [M, K]."""
    return _experts(linear_mxfp4, x, gate_up, down, routing, form)


def _empty(num_experts: int | None, *shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Unfilled memory of one matrix, or of one for each expert."""
    experts = () if num_experts is None else (num_experts,)
    return torch.empty(*experts, *shape, dtype=dtype, device=device)


def _experts(
    multiply: Callable[[Tensor, QuantisedMatrix, Tensor | None], Tensor],
    x: Tensor,
    gate_up: QuantisedMatrix,
    down: QuantisedMatrix,
    routing: Routing,
    form: ClampedForm | None = None,
) -> Tensor:
    """The mixture of experts whose two products are `multiply`."""

    def bias(of_experts: Tensor | None, i: int) -> Tensor | None:
        return None if of_experts is None else of_experts[i]

    gate_up_bias, down_bias = (None, None) if form is None else (form.gate_up_bias, form.down_bias)
    return mixture(
        x,
        routing,
        gate_up.data.shape[0],
        lambda rows, i: multiply(rows, gate_up.expert(i), bias(gate_up_bias, i)),
        lambda rows, i: multiply(rows, down.expert(i), bias(down_bias, i)),
        gate=gate_of(form),
    )


def _halves(data: Tensor) -> Tensor:
    """[N, K / 2] uint8 -> [N, K] uint8, lower halves first."""
    return torch.stack((data & 15, data >> 4), dim=-1).flatten(-2)


def _laid_out(dense: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, K], rounded to dtype, in the layout that `linear` reads fastest."""
    return empty_weight(*dense.shape, dtype=dtype, device=dense.device).copy_(dense)


def linear_fp8_block(
    x: Tensor,
    weight: QuantisedMatrix,
    bias: Tensor | None = None,
    *,
    out_dtype: torch.dtype | None = None,
    has_power_of_two_scales: bool = False,
) -> Tensor:
    """x [M, K], weight [N, K] e4m3 with scales [⌈N / 128⌉, ⌈K / 128⌉] -> [M, N]."""
    assert weight.scales is not None, "a weight of this format has scales"
    output_size, input_size = weight.data.shape
    wide = _expanded(weight.data)
    row_scales = weight.scales.repeat_interleave(GROUP, dim=0)[:output_size]  # [N, groups]
    total = x.new_zeros(x.shape[0], output_size, dtype=torch.float32)
    for group, start in enumerate(range(0, input_size, GROUP)):
        columns = slice(start, start + GROUP)
        found, scales = _quantised(
            x[:, columns], None, torch.float8_e4m3fn, _E4M3_LARGEST, has_power_of_two_scales=has_power_of_two_scales
        )
        total += linear(found, wide[:, columns]) * (scales * row_scales[:, group])
    return _with_bias(total, bias, out_dtype or x.dtype)


def experts_fp8_block(
    x: Tensor,
    gate_up: QuantisedMatrix,
    down: QuantisedMatrix,
    routing: Routing,
    *,
    has_power_of_two_scales: bool = False,
) -> Tensor:
    """x [M, K], gate_up [E, 2I, K], down [E, K, I] -> [M, K]."""
    multiply = partial(linear_fp8_block, has_power_of_two_scales=has_power_of_two_scales)
    return _experts(multiply, x, gate_up, down, routing)


def _quantised(
    x: Tensor,
    input_scale: Tensor | None,
    dtype: torch.dtype,
    limit: float,
    *,
    has_power_of_two_scales: bool = False,
) -> tuple[Tensor, Tensor]:
    """Values of the type, as fp32 [M, K], and their scales [M, 1] or, if `input_scale` is given, [1]."""
    x = x.float().contiguous()
    scales = input_scale
    if scales is None:
        scales = x.abs().amax(dim=1, keepdim=True).clamp(min=_SMALLEST) / limit
        if has_power_of_two_scales:
            mantissa, exponent = torch.frexp(scales)  # mantissa in [0.5, 1): the next power of two, exactly
            scales = torch.ldexp(torch.ones_like(scales), exponent - (mantissa == 0.5).int())
    scaled = (x / scales).clamp(-limit, limit)
    return scaled.to(dtype).float() if dtype.is_floating_point else scaled.round(), scales


def _expanded(data: Tensor) -> Tensor:
    """[N, K] fp32, in the layout that `linear` reads fastest."""
    return _laid_out(data, torch.float32)


def _finished(
    total: Tensor, scales: Tensor, weight: QuantisedMatrix, bias: Tensor | None, out_dtype: torch.dtype
) -> Tensor:
    assert weight.scales is not None, "a weight of this format has scales"
    return _with_bias(total * (scales * weight.scales), bias, out_dtype)


def _with_bias(total: Tensor, bias: Tensor | None, out_dtype: torch.dtype) -> Tensor:
    out = total.to(out_dtype)
    return out if bias is None else out.add_(bias)
