"""`awq`: 4-bit weights in groups with zeros, in the `gemm` layout."""

import re

from outrider.core.config_reader import ConfigReader
from outrider.core.quantization.scheme import Quantization, Rule, Scheme, plain_rule

_REASON = "how the tool found its scales; the files hold them"


def read(reader: ConfigReader) -> Quantization:
    """The keys of AutoAWQ, in its spelling and in that of transformers. The head is not quantised."""
    reader.ignore("exllama_config", "backend", "do_fuse", "modules_to_fuse", "fuse_max_seq_len", reason=_REASON)
    bits, size = ("w_bit", "q_group_size") if reader.has("w_bit") else ("bits", "group_size")
    reader.choice(bits, (4,))
    reader.choice("zero_point", (True,), default=True)
    reader.choice("version", ("gemm", "GEMM"), default="gemm")
    group_size = reader.integer(size, default=128, minimum=-1)
    ignored = (*reader.texts("modules_to_not_convert"), "lm_head")
    scheme = Scheme(format="awq", options=(("group_size", None if group_size <= 0 else group_size),))
    # a name leaves out every module that contains it
    patterns = [f".*{re.escape(name)}.*" for name in ignored]
    rules = (*plain_rule(patterns, where=reader.where), Rule(pattern=re.compile(".*"), scheme=scheme))
    return Quantization(method="awq", rules=rules)
