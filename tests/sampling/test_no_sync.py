"""Nothing on the step's path waits for the device or makes a shape from data.

Tensors of the meta device have shapes and no values: an operation that needs a value raises. What would only be
suspicious (a tensor made of host data, a change of device) is found by recording every operation.
"""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from outrider.kernels.reference.sampling.noise import gumbel_at
from outrider.kernels.reference.sampling.verify import verify
from outrider.sampling.params import SamplingTable
from outrider.sampling.sampler import SampleBatch, Sampler

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "item", "lift_fresh", "is_nonzero")


class DeviceOnly(TorchDispatchMode):
    """Fails on an operation that leaves the device, takes data from the host or is known to wait."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        assert name not in WAITING, name
        device = kwargs.get("device")
        assert device is None or torch.device(device).type == "meta", f"{name} on {device}"
        return func(*args, **kwargs)


@pytest.mark.parametrize("lists_all", [False, True])
@pytest.mark.parametrize("num_drafts", [0, 3])
def test_a_step_needs_no_value_on_the_host(num_drafts: int, lists_all: bool) -> None:
    num_rows, vocab_size, num_samples = 5, 97, 5 * (num_drafts + 1)

    def ints(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.int64, device="meta")

    table = SamplingTable(8, vocab_size, "meta")
    listed = ints(num_samples) if lists_all else None
    batch = SampleBatch(
        rows=ints(num_samples),
        offsets=ints(num_samples),
        lengths=ints(num_samples),
        drafts=ints(num_samples, num_drafts),
        lists=dict.fromkeys(table.operations, listed),
        num_logprobs=20 if lists_all else None,
        wants_digest=lists_all,
        token_ids=ints(8, 50),
    )
    logits = torch.zeros(num_samples, vocab_size, device="meta")
    rows, drafts = ints(num_rows), ints(num_rows, num_drafts)
    with DeviceOnly():
        sampled = Sampler()(logits, batch, table)
        verified = verify(sampled.token_ids, sample_starts=rows, num_samples=rows, drafts=drafts, num_tokens_left=rows)
        table.count(rows, verified.token_ids, verified.num_tokens)
        noise = gumbel_at(rows, rows, rows, rows)
    assert verified.token_ids.is_meta and verified.token_ids.shape == (num_rows, num_drafts + 1)
    assert noise.is_meta


def test_a_wait_would_be_seen() -> None:
    values = torch.zeros(4, device="meta")
    for wait in (
        lambda: values[0].item(),
        lambda: values.tolist(),
        lambda: values[values > 0],
        lambda: values.cpu(),
        lambda: bool(values[0] > 0),
        lambda: values + torch.tensor([1.0, 2.0, 3.0, 4.0]),
    ):
        with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), DeviceOnly():
            wait()
