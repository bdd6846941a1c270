"""`modelopt`: NVIDIA's Model Optimizer, from config.json or hf_quant_config.json. FP8 with one scale per tensor, or per
channel and token; what it does with 4 bits is refused by name.
"""

import fnmatch
import re

from outrider.core.config_reader import ConfigReader
from outrider.core.quantization.scheme import Quantization, Rule, Scheme, plain_rule

_OPTIONS = {
    "FP8": (("has_scale_per_tensor", True), ("is_static", True)),
    "FP8_PER_CHANNEL_PER_TOKEN": (),
}


def read(reader: ConfigReader) -> Quantization:
    """Both spellings: keys at the top, or in the section `quantization` of hf_quant_config.json."""
    reader.ignore("producer", reason="the tool that wrote the checkpoint")
    reader.ignore("config_groups", reason="details of quant_algo, which says the whole scheme")
    reader.ignore("kv_cache_scheme", reason="an offer: kv_cache_dtype says how keys and values are stored")
    keys = reader.section("quantization") if reader.has("quantization") else reader
    keys.ignore("kv_cache_quant_algo", reason="an offer: kv_cache_dtype says how keys and values are stored")
    keys.neutral("group_size", reason="FP8 has no groups")
    algorithm = keys.choice("quant_algo", tuple(_OPTIONS))
    ignored = keys.texts("exclude_modules") + keys.texts("ignore")
    # `*` matches any text; a module that is named leaves out all below it
    patterns = [fnmatch.translate(name) for one in ignored for name in (one, f"{one}.*")]
    rules = (
        *plain_rule(patterns, where=reader.where),
        Rule(pattern=re.compile(".*"), scheme=Scheme(format="fp8", options=_OPTIONS[algorithm])),
    )
    return Quantization(method="modelopt", rules=rules)
