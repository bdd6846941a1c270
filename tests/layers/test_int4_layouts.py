"""The layouts of 4-bit files, written down element by element as they are published, and read by the formats."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from outrider.kernels import load_kernels
from outrider.layers.formats import awq, gptq, mxfp4, pack_quantized
from outrider.layers.weight_format import WeightFormat
from outrider.loading.slot import Slot

KERNELS = load_kernels(("reference",))
N, K, SIZE = 16, 64, 32
GENERATOR = torch.Generator().manual_seed(6)
VALUES = torch.randint(0, 16, (N, K), generator=GENERATOR)
ZEROS = torch.randint(1, 16, (N, K // SIZE), generator=GENERATOR)
SCALES = torch.rand(N, K // SIZE, generator=GENERATOR).half()
ORDER = torch.randint(0, K // SIZE, (K,), generator=GENERATOR)
CONTIGUOUS = torch.arange(K) // SIZE


def integers(rows: int, columns: int, value: Callable[[int, int, int], int]) -> Tensor:
    """int32 [rows, columns] whose half-byte j of (r, c) is value(r, c, j)."""
    out = torch.zeros(rows, columns, dtype=torch.int64)
    for r in range(rows):
        for c in range(columns):
            out[r, c] = sum(int(value(r, c, j)) << (4 * j) for j in range(8))
    return torch.where(out >= 2**31, out - 2**32, out).int()


def compressed(zeros: Tensor | None, order: Tensor) -> dict[str, Tensor]:
    found = {
        "weight_packed": integers(N, K // 8, lambda r, c, j: VALUES[r, 8 * c + j]),
        "weight_scale": SCALES,
        "weight_shape": torch.tensor([N, K]),
    }
    if zeros is not None:
        found["weight_zero_point"] = integers(N // 8, K // SIZE, lambda r, c, j: zeros[8 * r + j, c])
    if order is not CONTIGUOUS:
        found["weight_g_idx"] = order.int()
    return found


def gptq_files(zeros: Tensor | None, order: Tensor, *, offset: int = 1) -> dict[str, Tensor]:
    stored = torch.full((N, K // SIZE), 8) if zeros is None else zeros
    return {
        "qweight": integers(K // 8, N, lambda r, c, j: VALUES[c, 8 * r + j]),
        "qzeros": integers(K // SIZE, N // 8, lambda r, c, j: stored[8 * c + j, r] - offset),
        "scales": SCALES.t(),
        "g_idx": order.int(),
    }


def awq_files() -> dict[str, Tensor]:
    output = [0, 2, 4, 6, 1, 3, 5, 7]  # the output, of each eight, in half-bytes 0 to 7
    return {
        "qweight": integers(K, N // 8, lambda r, c, j: VALUES[8 * c + output[j], r]),
        "qzeros": integers(K // SIZE, N // 8, lambda r, c, j: ZEROS[8 * c + output[j], r]),
        "scales": SCALES.t(),
    }


CASES: dict[str, tuple[WeightFormat, dict[str, Tensor], Tensor | None, Tensor]] = {
    "compressed": (pack_quantized.Format(group_size=SIZE), compressed(None, CONTIGUOUS), None, CONTIGUOUS),
    "compressed zeros": (
        pack_quantized.Format(group_size=SIZE, has_zeros=True), compressed(ZEROS, CONTIGUOUS), ZEROS, CONTIGUOUS
    ),
    "compressed order": (
        pack_quantized.Format(group_size=SIZE, has_order=True), compressed(None, ORDER), None, ORDER
    ),
    "gptq": (gptq.Format(group_size=SIZE), gptq_files(None, CONTIGUOUS), None, CONTIGUOUS),
    "gptq order": (
        gptq.Format(group_size=SIZE, has_zeros=True, has_order=True), gptq_files(ZEROS, ORDER), ZEROS, ORDER
    ),
    "gptq v2": (
        gptq.Format(group_size=SIZE, has_zeros=True, zero_offset=0), gptq_files(ZEROS, CONTIGUOUS, offset=0), ZEROS,
        CONTIGUOUS,
    ),
    "awq": (awq.Format(group_size=SIZE), awq_files(), ZEROS, CONTIGUOUS),
}  # fmt: skip


def filled(form: WeightFormat, files: dict[str, Tensor], *, input_size: int = K):
    weight = form.empty(KERNELS, N, input_size, dtype=torch.float32, device=torch.device("cpu"))
    for name, view in form.rows(weight, 0, N).items():
        if name not in files:
            assert isinstance(view, Slot) and view.is_optional, name
            continue
        assert isinstance(view, Slot) and tuple(files[name].shape) in view.shapes and files[name].dtype in view.dtypes
        view.fill(files[name])
    return weight


@pytest.mark.parametrize("case", CASES)
def test_elements_are_those_of_the_published_layout(case: str) -> None:
    form, files, zeros, order = CASES[case]
    weight = filled(form, files)
    found = form.linear(KERNELS, torch.eye(K), weight, None, out_dtype=None)
    middle = torch.full((N, K // SIZE), 8) if zeros is None else zeros
    wanted = (VALUES - middle[:, order]).float() * SCALES.float()[:, order]
    assert torch.equal(found, wanted.t())


@pytest.mark.parametrize("is_packed", [False, True])
def test_elements_of_mxfp4(is_packed: bool) -> None:
    """The value of four bits, by sign, exponent and mantissa, times a power of two."""
    exponents = torch.randint(100, 140, (N, K // 32), generator=GENERATOR, dtype=torch.uint8)
    data = (VALUES[:, 0::2] | VALUES[:, 1::2] << 4).to(torch.uint8)
    blocks = data.view(N, K // 32, 16)
    files = (
        {"weight_blocks": blocks, "weight_scales": exponents}
        if is_packed
        else {"weight_packed": data, "weight_scale": exponents}
    )
    form = mxfp4.Format(is_packed=is_packed)
    found = form.linear(KERNELS, torch.eye(K), filled(form, files), None, out_dtype=None)
    sign, exponent, mantissa = 1 - 2 * (VALUES >> 3), VALUES >> 1 & 3, VALUES & 1
    magnitude = torch.where(exponent == 0, mantissa * 0.5, 2.0 ** (exponent - 1) * (1 + mantissa * 0.5))
    wanted = sign * magnitude * 2.0 ** (exponents.double() - 127).repeat_interleave(32, dim=1)
    assert torch.equal(found.double(), wanted.t())


def test_zeros_that_contradict_the_config_are_refused() -> None:
    with pytest.raises(ValueError, match=r"zeros other than 8, and the config says that they are symmetric"):
        filled(gptq.Format(group_size=SIZE), gptq_files(ZEROS, CONTIGUOUS))
    with pytest.raises(ValueError, match=r"has a zero above 15"):
        filled(
            gptq.Format(group_size=SIZE, has_zeros=True), gptq_files(torch.zeros_like(ZEROS), CONTIGUOUS, offset=-15)
        )
    with pytest.raises(ValueError, match=r"names groups outside of 0 … 1"):
        filled(gptq.Format(group_size=SIZE, has_order=True), gptq_files(None, ORDER + 1))
