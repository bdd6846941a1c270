"""`fp8`: e4m3 weights in blocks of 128 × 128, or whole tensors with one scale each; the head is not quantised."""

import re

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import UnsupportedError
from outrider.core.quantization.scheme import Quantization, Rule, Scheme, plain_rule


def read(reader: ConfigReader) -> Quantization:
    """The keys of transformers' FineGrainedFP8Config, and of vLLM's for tensors without blocks."""
    reader.choice("fmt", ("e4m3",), default="e4m3")
    scale_type = reader.choice("scale_fmt", ("float32", "ue8m0"), default="float32")
    reader.choice("dequantize", (False,), default=False)
    activations = reader.choice("activation_scheme", ("dynamic", "static"), default="dynamic")
    ignored = reader.texts("modules_to_not_convert") + reader.texts("ignored_layers")
    notes: tuple[str, ...] = ()
    if reader.has("weight_block_size"):
        if reader.integers("weight_block_size") != (128, 128):
            raise UnsupportedError(f"{reader.said('weight_block_size')} is not supported. Supported: [128, 128].")
        if activations != "dynamic":
            raise UnsupportedError(
                f"{reader.said('activation_scheme')} is not supported for weights in blocks. Supported: 'dynamic'."
            )
        options = (("scale_name", "weight_scale_inv"), ("has_power_of_two_scales", scale_type == "ue8m0"))
        scheme = Scheme(format="fp8_block", options=options)
    elif scale_type != "float32":
        raise UnsupportedError(f"{reader.said('scale_fmt')} is supported with weight_block_size=[128, 128] only.")
    else:
        is_static = activations == "static"
        scheme = Scheme(format="fp8", options=(("has_scale_per_tensor", True), ("is_static", is_static)))
        if not is_static:
            notes = ("activation scales are made for each token, never for the tensor of a batch",)
    # a name stands for the module, for all below it, and for every module that it is the end of
    patterns = [rf"(?:.*\.)?{re.escape(name)}(?:\..*)?" for name in (*ignored, "lm_head")]
    rules = (*plain_rule(patterns, where=reader.where), Rule(pattern=re.compile(".*"), scheme=scheme))
    return Quantization(method="fp8", rules=rules, notes=notes)
