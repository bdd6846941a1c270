"""Reads quantization_config, or compression_config, its older name. Each method has a file in `methods`."""

from outrider.core import plugins
from outrider.core.config_reader import ConfigReader
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.core.quantization import methods
from outrider.core.quantization.scheme import Quantization

_KEYS = ("quantization_config", "compression_config")


def read_quantization(reader: ConfigReader) -> Quantization | None:
    """The schemes of the checkpoint; None if its weights are not quantised.

    Raises UnsupportedError, with the method or the key, for a way of quantising that is not read.
    """
    found = [key for key in _KEYS if reader.has(key) and reader.section(key).keys]
    if len(found) > 1:
        raise ConfigError(f"{reader.where} has quantization_config and compression_config. Keep one of the two.")
    if not found:
        return None
    section = reader.section(found[0])
    method = section.text("quant_method")
    name = method.replace("-", "_")
    if name not in plugins.names(methods) or method != method.lower():
        known = ", ".join(known.replace("compressed_tensors", "compressed-tensors") for known in plugins.names(methods))
        raise UnsupportedError(
            f"{section.said('quant_method')} is not supported. Supported: {known}. Use a checkpoint in one of these, or"
            " one in bfloat16."
        )
    quantization: Quantization = plugins.find(methods, name, what="quantisation method").read(section)
    return quantization
