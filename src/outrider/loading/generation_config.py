"""generation_config.json of a model directory: ids that end an output, and recommended sampling parameters."""

from pathlib import Path

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import ConfigError, RequestError
from outrider.core.sampling_defaults import SamplingDefaults
from outrider.loading.gguf.config import read_gguf_sampling
from outrider.loading.gguf.file import is_gguf
from outrider.loading.hf import read_json

_FILE = "generation_config.json"
_NAMES = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}
"""Keys of the file that are read, as vLLM does, and their names here. Others, such as do_sample, have no effect."""


def read_generation_eos(directory: str | Path) -> tuple[int, ...]:
    """eos ids of generation_config.json; none where there is no such file or it names none."""
    if not (Path(directory) / _FILE).is_file():
        return ()
    return ConfigReader(read_json(directory, _FILE), where=str(Path(directory) / _FILE)).token_ids("eos_token_id")


def read_sampling_defaults(directory: str | Path) -> SamplingDefaults:
    """Sampling parameters of generation_config.json, or of a GGUF file's metadata; none where there are none.

    Raises ConfigError if a value is out of range.
    """
    if is_gguf(directory):
        values, where = read_gguf_sampling(directory), str(directory)
    elif (Path(directory) / _FILE).is_file():
        values, where = read_json(directory, _FILE), str(Path(directory) / _FILE)
    else:
        return SamplingDefaults()
    defaults = SamplingDefaults(**{name: values.get(key) for key, name in _NAMES.items()})
    try:
        defaults.params()
    except RequestError as error:
        raise ConfigError(f"{where}: {error} Correct the file, or ignore it with generation_config='none'.") from error
    return defaults
