"""Checks of the kernels of encoders: values in float64, and the same bits in every batch."""

import torch
from torch import Tensor

from tests.kernels.subject import Subject

SIZES = (1, 15, 16, 17, 33, 200)
"""Numbers of rows."""


def check_rows(subject: Subject, name: str, function, x: Tensor, exact: Tensor) -> None:
    """A function of rows is right, and gives a row the same bits in every batch and at every place."""
    whole = function(x)
    subject.close(name, whole, exact)
    for size in SIZES:
        for start in (0, 1, 7, x.shape[0] - size):
            if 0 <= start <= x.shape[0] - size:
                subject.same(f"{name} of {size} rows", function(x[start : start + size].clone()), whole[start:][:size])


def check_text_linear(subject: Subject) -> None:
    for output_size, input_size in ((96, 48), (1, 320), (7, 33), (384, 1536), (768, 3072)):
        weight = subject.kernels.empty_weight(output_size, input_size, dtype=subject.dtype, device=subject.device)
        weight.copy_(subject.randn(output_size, input_size))
        x, bias = subject.randn(201, input_size), subject.randn(output_size)
        exact = x.double() @ weight.double().t() + bias.double()
        check_rows(
            subject, "text_linear", lambda rows, w=weight, b=bias: subject.kernels.text_linear(rows, w, b), x, exact
        )
        wide = subject.kernels.text_linear(x, weight, out_dtype=torch.float32)
        subject.close("text_linear to fp32", wide, x.double() @ weight.double().t())


def check_layer_norm(subject: Subject) -> None:
    norm = subject.kernels.layer_norm
    for width in (1, 48, 50, 384, 1000):
        x, weight, bias = subject.randn(201, width) * 3 + 1, subject.randn(width), subject.randn(width)
        for added in (bias, None):
            exact = torch.nn.functional.layer_norm(
                x.double(), (width,), weight.double(), None if added is None else added.double(), 0.3
            )
            check_rows(subject, "layer_norm", lambda rows, w=weight, b=added: norm(rows, w, b, 0.3), x, exact)


def check_gelu(subject: Subject) -> None:
    for width in (1, 81, 96):
        x = subject.randn(201, width) * 3
        check_rows(subject, "gelu", subject.kernels.gelu, x, torch.nn.functional.gelu(x.double()))


def check_gelu_and_mul(subject: Subject) -> None:
    for width in (1, 81, 96):
        x = subject.randn(201, 2 * width) * 3
        gate, up = x.double().chunk(2, dim=1)
        check_rows(subject, "gelu_and_mul", subject.kernels.gelu_and_mul, x, torch.nn.functional.gelu(gate) * up)


def check_text_attention(subject: Subject) -> None:
    lengths, num_padding = (1, 16, 17, 130, 300), 3
    places = [place for length in lengths for place in range(1, length + 1)]
    counts = (*lengths[:-1], lengths[-1] + num_padding)
    heads = subject.randn(sum(counts), 9, 16)
    heads[sum(lengths) :] = float("nan")
    kernels = subject.kernels
    plan = kernels.plan_texts(torch.tensor(places + [0] * num_padding, device=subject.device), counts)
    for window in (None, 7, 129):
        out = kernels.text_attention(*heads.split(3, dim=1), plan, scale=0.3, window=window)
        assert not out[sum(lengths) :].any(), "outputs of padding are 0"
        for own, part in zip(heads[: sum(lengths)].split(lengths), out[: sum(lengths)].split(lengths), strict=True):
            place = torch.arange(own.shape[0], device=subject.device)
            hidden = (place[:, None] - place).abs() > (own.shape[0] if window is None else window // 2)
            q, k, v = (x.transpose(0, 1) for x in own.double().split(3, dim=1))
            weights = (q @ k.transpose(1, 2) * 0.3).masked_fill(hidden, -torch.inf).softmax(dim=-1)
            subject.close("text_attention", part, (weights @ v).transpose(0, 1))
            one = kernels.plan_texts(place + 1, (own.shape[0],))
            alone = kernels.text_attention(*own.split(3, dim=1), one, scale=0.3, window=window)
            subject.same("text_attention of a text alone", alone, part)
