"""Random weights from a seed: a model of any config without a checkpoint."""

import hashlib

import torch
from torch import Tensor, nn

from outrider.loading.load import HasParts, targets_of
from outrider.loading.slot import Slot


def fill_randomly(module: nn.Module, seed: int) -> None:
    """Fills every floating-point weight of `module` in place, scaled so that logits spread over several units.

    A weight depends on the seed and its name only (and on the kind of device that draws it), so a model and a
    fused or tied copy of it get the same values.
    """
    for name, target in targets_of(module).tensors.items():
        if isinstance(target, Slot) or not target.is_floating_point() or target.dtype.itemsize == 1:
            continue  # quantised: filled below
        target.copy_(_values(name, torch.empty_like(target), seed))
    for prefix, child in module.named_modules():
        if isinstance(child, HasParts) and child.storage:
            for name, empty, fill in child.encoders(prefix):
                fill(_values(name, empty, seed))


def _values(name: str, empty: Tensor, seed: int) -> Tensor:
    """`empty` filled with the values of the tensor called `name`."""
    generator = torch.Generator(device=empty.device).manual_seed(_seed_of(name, seed))
    if empty.ndim == 1:
        return empty.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.1, generator=generator)
    scale = 1.0 if name.startswith("embed_tokens") else _gain(name) * empty.shape[-1] ** -0.5
    return empty.normal_(0.0, scale, generator=generator)


def _seed_of(name: str, seed: int) -> int:
    """63 bits; every one depends on both, because a CPU's generator reads the lower 32 only."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little") >> 1


def _gain(name: str) -> float:
    """Logits want a spread of a few units; everything else keeps its input's size."""
    return 4.0 if name.startswith("lm_head") else 1.0
