"""`compressed-tensors`: groups of modules, each with a scheme of its own, and modules that are left as they are."""

import re
from collections.abc import Sequence
from typing import Any

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import UnsupportedError
from outrider.core.quantization.scheme import Quantization, Rule, Scheme, compiled, plain_rule

_FORMATS = ("float-quantized", "naive-quantized", "int-quantized", "pack-quantized", "mxfp4-pack-quantized",
            "mixed-precision", "dense")  # fmt: skip
_REASON = "how the tool found its scales; the files hold them"
_SUPPORTED = (
    "FP8 weights per channel, per tensor or in blocks of 128 × 128, with activations in FP8; INT8 weights per channel"
    " or per tensor with INT8 activations; 4-bit integer weights alone (pack-quantized); MXFP4 weights alone"
)


def read(reader: ConfigReader) -> Quantization:
    """The schemes of all groups. A group that names a module goes before one for all linear layers."""
    reader.ignore("version", "global_compression_ratio", reason="facts about the files")
    reader.choice("quantization_status", ("compressed",), default="compressed")
    reader.neutral("sparsity_config", {}, reason="no weights are left out")
    reader.neutral("transform_config", {}, reason="nothing is rotated")
    reader.ignore("kv_cache_scheme", reason="an offer: kv_cache_dtype says how keys and values are stored")
    reader.choice("format", _FORMATS, default="mixed-precision")
    groups = reader.section("config_groups")
    named: list[Rule] = []
    for_all: list[Rule] = []
    notes: list[str] = []
    for name in groups.keys:
        group = groups.section(name)
        scheme = _read_scheme(group, notes)
        targets = group.texts("targets") or ("Linear",)
        named += [_rule(target, scheme, where=reader.where) for target in targets if target != "Linear"]
        if "Linear" in targets:
            for_all.append(Rule(pattern=re.compile(".*"), scheme=scheme))
    ignored = reader.texts("ignore")
    rules = (*plain_rule(_patterns(ignored), where=reader.where), *named, *for_all)
    return Quantization(method="compressed-tensors", rules=rules, notes=tuple(dict.fromkeys(notes)))


def _patterns(names: Sequence[str]) -> list[str]:
    """A name matches itself; `re:` begins an expression that a module's name must begin with."""
    return [f"(?:{name[3:]}).*" if name.startswith("re:") else re.escape(name) for name in names]


def _rule(target: str, scheme: Scheme, *, where: str) -> Rule:
    return Rule(pattern=compiled(_patterns([target])[0], where=where), scheme=scheme)


def _read_scheme(group: ConfigReader, notes: list[str]) -> Scheme:
    group.choice("format", _FORMATS, default="mixed-precision")
    group.refuse("output_activations", "outputs are not quantised. Use a checkpoint without it.")
    weights = _read_arguments(group.section("weights"))
    activations = _read_arguments(group.section("input_activations")) if group.has("input_activations") else None
    kind = (weights["type"], weights["num_bits"], weights["strategy"])
    if weights["dynamic"]:
        raise _unsupported(group, "weights with dynamic scales")
    if kind[:2] in (("float", 8), ("int", 8)) and activations is not None:
        if (activations["type"], activations["num_bits"]) != kind[:2] or not activations["symmetric"]:
            raise _unsupported(group, "activations of another type than the weights, or with zero points")
        if not weights["symmetric"]:
            raise _unsupported(group, "weights with zero points and quantised activations")
        if kind == ("float", 8, "block"):
            return _read_blocks(group, weights, activations)
        return _read_rows(group, weights, activations, notes)
    if kind[:2] == ("int", 4) and activations is None and kind[2] in ("group", "channel"):
        options = {
            "group_size": weights["group_size"] if kind[2] == "group" else None,
            "has_zeros": not weights["symmetric"],
            "has_order": weights["actorder"] in ("group", "dynamic", True),
        }
        return Scheme(format="pack_quantized", options=tuple(options.items()))
    if kind == ("float", 4, "group") and activations is None and weights["group_size"] == 32:
        return Scheme(format="mxfp4")
    raise _unsupported(group, f"{kind[1]}-bit {kind[0]} weights per {kind[2]}")


def _read_blocks(group: ConfigReader, weights: dict[str, Any], activations: dict[str, Any]) -> Scheme:
    if weights["block"] != (128, 128):
        raise _unsupported(group, f"blocks of {weights['block']}")
    if not activations["dynamic"] or (activations["strategy"], activations["group_size"]) != ("group", 128):
        raise _unsupported(group, "weights in blocks with activations other than dynamic groups of 128")
    return Scheme(format="fp8_block", options=(("scale_name", "weight_scale"),))


def _read_rows(group: ConfigReader, weights: dict[str, Any], activations: dict[str, Any], notes: list[str]) -> Scheme:
    if weights["strategy"] not in ("channel", "tensor"):
        raise _unsupported(group, f"weights per {weights['strategy']} with quantised activations")
    is_static = not activations["dynamic"]
    if activations["strategy"] not in (("tensor",) if is_static else ("token", "tensor")):
        raise _unsupported(group, f"activations per {activations['strategy']} with weights per {weights['strategy']}")
    if not is_static and activations["strategy"] == "tensor":
        notes.append("activation scales are made for each token, never for the tensor of a batch")
    options = (("has_scale_per_tensor", weights["strategy"] == "tensor"), ("is_static", is_static))
    return Scheme(format="fp8" if weights["type"] == "float" else "int8", options=options)


def _read_arguments(reader: ConfigReader) -> dict[str, Any]:
    """The arguments of one kind of tensor, with the defaults of the library."""
    reader.ignore("observer", "observer_kwargs", "scale_dtype", "zp_dtype", reason=_REASON)
    group_size = reader.integer("group_size", default=0, minimum=-1)
    default = "tensor" if group_size == 0 else "channel" if group_size == -1 else "group"
    block = reader.integers("block_structure") if reader.has("block_structure") else ()
    return {
        "num_bits": reader.integer("num_bits", default=8),
        "type": reader.choice("type", ("int", "float"), default="int"),
        "strategy": reader.text("strategy", default=default),
        "symmetric": reader.flag("symmetric", default=True),
        "dynamic": reader.choice("dynamic", (True, False), default=False),
        "group_size": group_size,
        "block": block,
        "actorder": reader.choice("actorder", (True, False, "group", "weight", "static", "dynamic"), default=False),
    }


def _unsupported(group: ConfigReader, what: str) -> UnsupportedError:
    return UnsupportedError(f"{group.said('weights')}: {what} are not supported. Supported: {_SUPPORTED}.")
