"""Random weights from a seed: a model of any config without a checkpoint."""

import hashlib

import torch
from torch import nn

from outrider.loading.load import targets_of


def fill_randomly(module: nn.Module, seed: int) -> None:
    """Fills every floating-point weight of `module` in place, scaled so that logits spread over several units.

    A weight depends on the seed and its name only (and on the kind of device that draws it), so a model and a
    fused or tied copy of it get the same values.
    """
    for name, target in targets_of(module).tensors.items():
        if not target.is_floating_point():
            continue
        generator = torch.Generator(device=target.device).manual_seed(_seed_of(name, seed))
        if target.ndim == 1:
            center = 1.0 if name.endswith("norm.weight") else 0.0
            values = torch.empty_like(target).normal_(center, 0.1, generator=generator)
        else:
            scale = 1.0 if name.startswith("embed_tokens") else _gain(name) * target.shape[-1] ** -0.5
            values = torch.empty_like(target).normal_(0.0, scale, generator=generator)
        target.copy_(values)


def _seed_of(name: str, seed: int) -> int:
    """63 bits; every one depends on both, because a CPU's generator reads the lower 32 only."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little") >> 1


def _gain(name: str) -> float:
    """Logits want a spread of a few units; everything else keeps its input's size."""
    return 4.0 if name.startswith("lm_head") else 1.0
