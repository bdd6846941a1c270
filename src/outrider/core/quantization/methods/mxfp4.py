"""`mxfp4`: the experts in 4-bit floats, all others plain."""

import re

from outrider.core.config_reader import ConfigReader
from outrider.core.quantization.scheme import Quantization, Rule, Scheme, plain_rule


def read(reader: ConfigReader) -> Quantization:
    """The keys of transformers' Mxfp4Config."""
    reader.choice("dequantize", (False,), default=False)
    ignored = reader.texts("modules_to_not_convert")
    patterns = [rf"(?:.*\.)?{re.escape(name)}(?:\..*)?" for name in ignored if "experts" in name]
    scheme = Scheme(format="mxfp4", options=(("is_packed", True),))
    rules = (*plain_rule(patterns, where=reader.where), Rule(pattern=re.compile(r".*\.experts(\..*)?"), scheme=scheme))
    return Quantization(method="mxfp4", rules=rules)
