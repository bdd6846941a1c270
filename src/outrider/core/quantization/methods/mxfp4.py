"""`mxfp4`: the experts in 4-bit floats, all others plain."""

import re

from outrider.core.config_reader import ConfigReader
from outrider.core.quantization.scheme import Quantization, Rule, Scheme, plain_rule


def read(reader: ConfigReader) -> Quantization:
    """The keys of transformers' Mxfp4Config. `*` in the name of a module stands for anything."""
    reader.choice("dequantize", (False,), default=False)
    ignored = reader.texts("modules_to_not_convert")
    names = [re.escape(name).replace(r"\*", ".*") for name in ignored]
    patterns = [rf"(?:.*\.)?{name}(?:\..*)?" for name in names]
    scheme = Scheme(format="mxfp4", options=(("is_packed", True),))
    rules = (*plain_rule(patterns, where=reader.where), Rule(pattern=re.compile(r".*\.experts(\..*)?"), scheme=scheme))
    return Quantization(method="mxfp4", rules=rules)
