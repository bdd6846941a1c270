"""Copies of an EAGLE-3 head, each broken in one way that occurs in practice. For the evidence on the gate's power."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Weights = dict[str, Tensor]

NOISE = (0.05, 0.1, 0.2, 0.4)
"""Strengths: standard deviation of the added noise, in units of each matrix's own."""


def _noise(strength: float) -> Callable[[Weights], None]:
    def damage(weights: Weights) -> None:
        generator = torch.Generator().manual_seed(1)
        for name, tensor in weights.items():
            if tensor.ndim == 2:
                noise = torch.randn(tensor.shape, generator=generator) * tensor.float().std() * strength
                weights[name] = (tensor.float() + noise).to(tensor.dtype)

    return damage


def _swap_fc(weights: Weights) -> None:
    """First and last of the three taps change places."""
    first, middle, last = weights["fc.weight"].chunk(3, dim=1)
    weights["fc.weight"] = torch.cat([last, middle, first], dim=1).contiguous()


def _shift_d2t(weights: Weights) -> None:
    """Every draft id means the next target id. t2d is emptied, or the loader would refuse the contradiction."""
    ids = torch.arange(len(weights["d2t"])) + weights["d2t"] + 1
    weights["d2t"] = ids.clamp(max=len(weights["t2d"]) - 1) - torch.arange(len(ids))
    weights["t2d"] = torch.zeros_like(weights["t2d"])


WEIGHTS: dict[str, Callable[[Weights], None]] = {
    **{f"weights noised by {strength:g}": _noise(strength) for strength in NOISE},
    "fc order swapped": _swap_fc,
    "d2t shifted by one": _shift_d2t,
}
"""Damage to the checkpoint, by name."""

CONFIG: dict[str, dict[str, object]] = {"rope theta ten times too large": {"rope_theta": 100_000.0}}
"""Damage to config.json."""

TAPS = {"aux layers one too deep": [3, 6, 8], "aux layers one too shallow": [1, 4, 6]}
"""Damage to the engine's options (the shipped head reads the streams after layers 2, 5 and 7)."""


def damaged_heads(healthy: Path, directory: Path, *, num_drafts: int = 3) -> dict[str, dict[str, object]]:
    """`speculative_config` of every damaged copy of `healthy`, by name; the copies are written to `directory`."""
    configs: dict[str, dict[str, object]] = {}
    for number, name in enumerate([*WEIGHTS, *CONFIG]):
        copy = directory / f"head-{number}"
        shutil.copytree(healthy, copy)
        weights = load_file(copy / "model.safetensors")
        WEIGHTS.get(name, lambda weights: None)(weights)
        save_file(weights, copy / "model.safetensors")
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | CONFIG.get(name, {})))
        configs[name] = {"method": "eagle3", "model": str(copy), "num_speculative_tokens": num_drafts}
    for name, layers in TAPS.items():
        configs[name] = {
            "method": "eagle3",
            "model": str(healthy),
            "num_speculative_tokens": num_drafts,
            "aux_hidden_state_layer_ids": layers,
        }
    return configs
