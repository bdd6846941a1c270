"""Kernels that compute with integers only: their results equal those of plain PyTorch on the host."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from outrider.invariance.calls import Call, copy_of, on_host
from outrider.invariance.comparison import difference
from outrider.invariance.form import Form, Limits
from outrider.kernels import Kernels, load_kernels


@cache
def _plain() -> Kernels:
    return load_kernels(("reference",))


def integer_forms(call: Call, limits: Limits) -> list[Form]:
    """One form: the recorded call, again, and on the host."""
    return [Form("as recorded", lambda: _compare(call))]


def _compare(call: Call) -> str | None:
    ours = {name: copy_of(value) for name, value in call.arguments.items()}
    plain = {name: on_host(value) for name, value in call.arguments.items()}
    mine = call.run(**ours)
    other = getattr(_plain(), call.name)(**plain)
    if call.name == "commit":
        _forget_unread(ours)
        _forget_unread(plain)
    found, wanted = _tensors([mine, *ours.values()]), _tensors([other, *plain.values()])
    return difference([part.cpu() for part in found], wanted)


def _forget_unread(table: dict[str, Any]) -> None:
    """Tokens after a row's last one are never read: a stack may write there."""
    token_ids, num_tokens = table["token_ids"], table["num_tokens"]
    is_read = torch.arange(token_ids.shape[1], device=token_ids.device) < num_tokens[: len(token_ids), None]
    token_ids.masked_fill_(~is_read, 0)


def _tensors(value: Any) -> list[Tensor]:
    """All tensors of a value, also of tuples in it; numbers alone become one row."""
    if isinstance(value, Tensor):
        return [value if value.dim() else value[None]]
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in _tensors(part)]
    assert not isinstance(value, torch.nn.Module), "a kernel takes tensors and numbers"
    return []
