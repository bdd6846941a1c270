"""The formats that `outrider quantize` writes, with the config of compressed-tensors that describes them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outrider.core.errors import ConfigError
from outrider.core.quantization.scheme import Quantization, Rule, Scheme

_FP8 = {"num_bits": 8, "type": "float", "symmetric": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A format to write."""

    scheme: Scheme
    """The format here."""
    format: str
    """Its name in compressed-tensors."""
    weights: Mapping[str, Any]
    activations: Mapping[str, Any] | None
    """Arguments of compressed-tensors; None: activations stay as they are."""

    @property
    def quantization(self) -> Quantization:
        """The rules: all linear layers but the head."""
        head = Rule(pattern=re.compile("lm_head"), scheme=None)
        rest = Rule(pattern=re.compile(".*"), scheme=self.scheme)
        return Quantization(method="compressed-tensors", is_chosen_here=True, rules=(head, rest))

    def config(self, ignored: Sequence[str]) -> dict[str, Any]:
        """The quantization_config of a checkpoint in which the modules `ignored` are plain."""
        group = {
            "targets": ["Linear"],
            "weights": dict(self.weights),
            "input_activations": dict(self.activations) if self.activations is not None else None,
            "output_activations": None,
        }
        return {
            "quant_method": "compressed-tensors",
            "format": self.format,
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": list(ignored),
            "kv_cache_scheme": None,
        }


TARGETS: Mapping[str, Target] = {
    "fp8-dynamic": Target(
        scheme=Scheme(format="fp8"),
        format="float-quantized",
        weights=_FP8 | {"strategy": "channel", "dynamic": False},
        activations=_FP8 | {"strategy": "token", "dynamic": True},
    ),
    "fp8-block": Target(
        scheme=Scheme(format="fp8_block"),
        format="float-quantized",
        weights=_FP8 | {"strategy": "block", "block_structure": [128, 128], "dynamic": False},
        activations=_FP8 | {"strategy": "group", "group_size": 128, "dynamic": True},
    ),
    "w4a16": Target(
        scheme=Scheme(format="pack_quantized"),
        format="pack-quantized",
        weights={
            "num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128, "dynamic": False,
        },
        activations=None,
    ),
}  # fmt: skip
"""By the value of --format."""


def find_target(name: str) -> Target:
    """The format called `name`. Raises ConfigError if there is none."""
    if name not in TARGETS:
        raise ConfigError(f"--format {name!r} is not known; it takes {', '.join(TARGETS)}.")
    return TARGETS[name]
