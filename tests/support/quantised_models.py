"""Quantised tiny checkpoints, made from plain ones by the formats' own rounding, with the config of a release."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from outrider.core.config_reader import ConfigReader
from outrider.core.quantization.read import read_quantization
from outrider.layers.weight_format import format_of

_MATRIX = re.compile(r"(_proj|_proj_\w+|\bfc|lm_head)\.weight$")

INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
INT4 = {"num_bits": 4, "type": "int", "symmetric": True}
FP8_ARGUMENTS = {"num_bits": 8, "type": "float", "symmetric": True}


def compressed(weights: dict[str, Any], activations: dict[str, Any] | None = None, **others: Any) -> dict[str, Any]:
    """A quantization_config of compressed-tensors with one group, without the head."""
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations, "output_activations": None}
    defaults = {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head", "re:.*mlp[.]gate$"],
    }
    return defaults | others


CONFIGS: Mapping[str, dict[str, Any]] = {
    "fp8-dynamic": compressed(
        FP8_ARGUMENTS | {"strategy": "channel"}, FP8_ARGUMENTS | {"strategy": "token", "dynamic": True}
    ),
    "fp8-tensor": compressed(
        FP8_ARGUMENTS | {"strategy": "tensor"}, FP8_ARGUMENTS | {"strategy": "tensor", "dynamic": True}
    ),
    "fp8-static": compressed(
        FP8_ARGUMENTS | {"strategy": "tensor"}, FP8_ARGUMENTS | {"strategy": "tensor", "dynamic": False}
    ),
    "fp8-block": compressed(
        FP8_ARGUMENTS | {"strategy": "block", "block_structure": [128, 128]},
        FP8_ARGUMENTS | {"strategy": "group", "group_size": 128, "dynamic": True},
    ),
    "int8": compressed(INT8 | {"strategy": "channel"}, INT8 | {"strategy": "token", "dynamic": True}),
    "int8-static": compressed(INT8 | {"strategy": "channel"}, INT8 | {"strategy": "tensor", "dynamic": False}),
    "w4a16": compressed(INT4 | {"strategy": "group", "group_size": 64}, format="pack-quantized"),
    "w4a16-zeros": compressed(INT4 | {"strategy": "group", "group_size": 32, "symmetric": False}),
    "w4a16-channel": compressed(INT4 | {"strategy": "channel", "actorder": "weight"}),
    "mxfp4": compressed({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}),
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm",
            "modules_to_not_convert": ["mlp.gate"]},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True,
             "dynamic": {"-:.*mlp.gate$": {}}},
    "gptq-zeros": {"quant_method": "gptq", "bits": 4, "group_size": -1, "desc_act": False, "sym": False,
                   "checkpoint_format": "gptq_v2", "dynamic": {"-:.*mlp.gate$": {}}},
    "deepseek": {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
        "modules_to_not_convert": ["model.layers.0.mlp.gate", "model.layers.1.mlp.gate"],
    },
    "fp8-whole": {"quant_method": "fp8", "activation_scheme": "static", "modules_to_not_convert": ["mlp.gate"]},
    "modelopt": {"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ["lm_head", "*.mlp.gate"]},
}  # fmt: skip
"""A quantization_config of each kind that is read."""


def quantise(directory: Path, quantization: dict[str, Any]) -> None:
    """Rewrite the files of a tiny model as this config says."""
    found = read_quantization(ConfigReader({"quantization_config": quantization}))
    assert found is not None
    tensors = {}
    for name, tensor in load_file(directory / "model.safetensors").items():
        module = name.rpartition(".")[0]
        scheme = found.scheme_of(module) if _MATRIX.search(name) else None
        encoded = format_of(scheme).encode(tensor)
        tensors |= {f"{module}.{last}" if scheme else name: part.contiguous() for last, part in encoded.items()}
    save_file(tensors, directory / "model.safetensors")
    rewrite_config(directory, quantization_config=quantization)


def rewrite_config(directory: Path, **fields: Any) -> None:
    """Set keys of config.json; None removes a key."""
    path = directory / "config.json"
    values = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
