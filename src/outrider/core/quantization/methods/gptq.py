"""`gptq`: 4-bit weights in groups, symmetric or with zeros, with or without an order of columns (`desc_act`)."""

import re
from typing import Any

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import UnsupportedError
from outrider.core.quantization.scheme import Quantization, Rule, Scheme, compiled

_REASON = "how the tool found its scales; the files hold them"


def read(reader: ConfigReader) -> Quantization:
    """The keys of AutoGPTQ and GPTQModel. `dynamic` overrides them by module: `-:` leaves modules out."""
    reader.ignore(
        "damp_percent", "static_groups", "true_sequential", "model_name_or_path", "model_file_base_name", "dataset",
        "tokenizer", "batch_size", "block_name_to_quantize", "module_name_preceding_first_block", "exllama_config",
        "use_exllama", "max_input_length", "cache_block_outputs", "backend", "use_cuda_fp16", "model_seqlen",
        "pad_token_id", "hyb_act", "act_group_aware", "mse", "meta", "pack_dtype", "pack_impl",
        "modules_in_block_to_quantize",
        reason=_REASON,
    )  # fmt: skip
    reader.choice("quant_method", ("gptq",), default="gptq")
    version = reader.choice("checkpoint_format", ("gptq", "gptq_v2"), default="gptq")
    defaults: dict[str, Any] = {"zero_offset": 1 if version == "gptq" else 0}
    scheme = _read_scheme(reader, defaults, is_complete=True)
    dynamic = reader.section("dynamic")
    rules = []
    for pattern in dynamic.keys:
        own = dynamic.section(pattern)
        overridden = None if pattern.startswith("-:") else _read_scheme(own, dict(scheme.options), is_complete=False)
        found = compiled(f"(?:{pattern.removeprefix('-:').removeprefix('+:')}).*", where=reader.where)
        rules.append(Rule(pattern=found, scheme=overridden))
    if not reader.flag("lm_head", default=False):
        rules.append(Rule(pattern=re.compile("lm_head"), scheme=None))
    return Quantization(method="gptq", rules=(*rules, Rule(pattern=re.compile(r".*"), scheme=scheme)))


def _read_scheme(reader: ConfigReader, defaults: dict[str, Any], *, is_complete: bool) -> Scheme:
    reader.choice("bits", (4,), default=None if is_complete else 4)
    options = dict(defaults)
    if is_complete or reader.has("group_size"):
        size = reader.integer("group_size", default=128, minimum=-1)
        if size == 0:
            raise UnsupportedError(
                f"{reader.said('group_size')} is not supported. Supported: -1, or a positive number."
            )
        options["group_size"] = None if size < 0 else size
    if is_complete or reader.has("sym"):
        options["has_zeros"] = not reader.flag("sym", default=True)
    if is_complete or reader.has("desc_act"):
        options["has_order"] = reader.flag("desc_act", default=False)
    return Scheme(format="gptq", options=tuple(sorted(options.items())))
