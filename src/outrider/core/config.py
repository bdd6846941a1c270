"""The options of an engine and of its drafter, checked when the objects are created.

A drafter's own options pass through unchecked: `speculation/options.py` gives them to the drafter. The model's
config.json is `core/model_config.py`; nothing here reads a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from outrider.core.errors import ConfigError, UnsupportedError
from outrider.core.option_checks import check_flag, check_integer, check_text, is_number
from outrider.core.quantization.while_loading import METHODS

RUNNERS = ("auto", "generate", "pooling")
MAX_DRAFTS = 16
"""Largest number of drafts per step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculativeConfig:
    """Which drafter runs and how far it looks ahead: the options that every drafter has. They can change speed only."""

    method: str
    """File name of a drafter in `outrider/speculation/drafters`, or the module path of one in another package."""
    num_speculative_tokens: int = 3
    """Number of drafts per step, k."""
    adaptive: bool = False
    """Choose 0 … k drafts for each step: as many as save time, given its load and the acceptance so far."""
    max_model_len: int | None = None
    """Positions from here on get no drafts; the request continues without them."""
    quantization: str | None = None
    """"fp8" rounds the drafter's weights to FP8 while they are loaded, whatever the target's are."""
    revision: str | None = None
    """Branch, tag or commit of a drafter's `model` on a hub; None: its main branch."""
    rejection_sample_method: str = "standard"
    """"standard" accepts a draft if it equals the sample. "synthetic", for benchmarks, accepts at the rates below,
    whatever the draft is; the engine is then not exact, and reports that."""
    synthetic_acceptance_rates: tuple[float, ...] | None = None
    """Synthetic: fraction of steps that accept draft i and all before it; one rate per draft, non-increasing."""
    synthetic_acceptance_length: float | None = None
    """Synthetic, instead of rates: mean number of tokens per step with drafts, 1 to k + 1."""
    options: Mapping[str, object] = field(default_factory=dict)
    """The drafter's own options by name, not yet checked: the `Options` of its module does that."""

    def __post_init__(self) -> None:
        if not isinstance(self.method, str):
            raise ConfigError(
                f"speculative_config['method']={self.method!r} must be a string. Name a drafter, such as 'ngram'."
            )
        check_integer(
            _key("num_speculative_tokens"),
            self.num_speculative_tokens,
            low=1,
            high=MAX_DRAFTS,
            remedy="3 is a good start.",
        )
        check_flag(_key("adaptive"), self.adaptive)
        if self.max_model_len is not None:
            check_integer(_key("max_model_len"), self.max_model_len, low=1, high=2**31 - 1, remedy="Leave it unset.")
        if self.revision is not None:
            check_text(_key("revision"), self.revision)
        _check_quantization(_key("quantization"), self.quantization)
        self._check_synthetic()

    def _check_synthetic(self) -> None:
        method, rates, length = (
            self.rejection_sample_method,
            self.synthetic_acceptance_rates,
            self.synthetic_acceptance_length,
        )
        if method not in ("standard", "synthetic"):
            raise ConfigError(f"rejection_sample_method={method!r} is not known; it takes 'standard' or 'synthetic'.")
        num_given = (rates is not None) + (length is not None)
        if num_given != (method == "synthetic"):
            raise ConfigError(
                f"rejection_sample_method={method!r} with synthetic_acceptance_rates={rates!r} and"
                f" synthetic_acceptance_length={length!r}: 'synthetic' takes one of the two, 'standard' neither."
            )
        k = self.num_speculative_tokens
        if rates is not None:
            are_rates = all(is_number(rate, low=0.0, high=1.0) for rate in rates)
            if len(rates) != k or not are_rates or list(rates) != sorted(rates, reverse=True):
                raise ConfigError(
                    f"synthetic_acceptance_rates={list(rates)!r} must be {k} numbers from 1 down to 0, none above the"
                    " one before it: rate i is the share of steps that accept draft i and all before it."
                )
        if length is not None and not is_number(length, low=1.0, high=k + 1.0):
            raise ConfigError(f"synthetic_acceptance_length={length!r} must be a number from 1 to {k + 1}.")

    @property
    def draft_widths(self) -> tuple[int, ...]:
        """Numbers of drafts that a step may have, ascending: few, because each is a graph of its own."""
        most = self.num_speculative_tokens
        return tuple(sorted({0, 1, min(2, most), (most + 1) // 2, most})) if self.adaptive else (most,)

    @property
    def acceptance_rates(self) -> tuple[float, ...] | None:
        """Acceptance rate of each draft, None unless acceptance is synthetic. A length becomes the rates of least
        variance: 1, …, 1, the rest, 0, …"""
        if self.synthetic_acceptance_length is None:
            return self.synthetic_acceptance_rates
        accepted = self.synthetic_acceptance_length - 1.0
        return tuple(min(max(accepted - place, 0.0), 1.0) for place in range(self.num_speculative_tokens))

    @staticmethod
    def shared_options() -> tuple[str, ...]:
        """Names of the options that every drafter has."""
        return tuple(entry.name for entry in fields(SpeculativeConfig) if entry.name != "options")

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "SpeculativeConfig":
        """Make one from the `speculative_config` argument. Keys that are not shared by all drafters go to `options`,
        unchecked.

        Raises ConfigError where a shared option has a wrong value.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"speculative_config={values!r} must be a dict. Example: {{'method': 'ngram'}}.")
        if "method" not in values:
            raise ConfigError("speculative_config has no 'method'. Name a drafter, such as 'ngram'.")
        if "options" in values:
            raise ConfigError(
                "speculative_config['options'] is not an option: a drafter's own options go beside 'method'. Write"
                " {'method': 'ngram', 'prompt_lookup_max': 4}, not {'options': {'prompt_lookup_max': 4}}."
            )
        shared = {name: values[name] for name in SpeculativeConfig.shared_options() if name in values}
        rates = shared.get("synthetic_acceptance_rates")
        if rates is not None:
            if not isinstance(rates, (list, tuple)):
                raise ConfigError(
                    f"speculative_config['synthetic_acceptance_rates']={rates!r} must be a list: one rate per draft."
                )
            shared["synthetic_acceptance_rates"] = tuple(rates)
        return SpeculativeConfig(**shared, options={name: values[name] for name in values if name not in shared})


def _check_quantization(name: str, value: str | None) -> None:
    if value is not None and value not in METHODS:
        raise ConfigError(
            f"{name}={value!r} is not known; it takes {', '.join(map(repr, METHODS))}. Files that are quantised already"
            " need no option."
        )


def _key(name: str) -> str:
    """Name of an option of speculation in error messages."""
    return f"speculative_config[{name!r}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """All options of an engine, its model directory included."""

    model: str
    """Model directory in Hugging Face form, id on a hub (org/name), or a model of the zoo (zoo/tiny)."""
    runner: str = "auto"
    """"generate" makes text, "pooling" makes vectors and scores; "auto" pools with models that cannot generate and with
    directories of sentence-transformers, and generates with all others."""
    revision: str | None = None
    """Branch, tag or commit of a model on a hub; None: its main branch. A drafter's is in `speculative_config`."""
    hf_token: str | bool | None = field(default=None, repr=False)
    """Access token for a hub. True or None: HF_TOKEN or the stored one, if there is one; False: none."""
    download_dir: str | None = None
    """Cache folder for models of a hub; None: the hub library's, which HF_HOME moves."""
    device: str = "auto"
    """File name of a platform in `outrider/platforms`, such as "cpu"; "auto": a GPU if it is exact, else the CPU."""
    dtype: str = "auto"
    """"auto", "float32", "bfloat16": compute and KV dtype. A CPU computes in float32."""
    seed: int = 0
    """Seed for dummy weights, and for drawing seeds of requests that have none."""
    max_model_len: int | None = None
    """Maximum number of tokens per request, prompt and output; None: the model's own limit."""
    max_num_seqs: int | None = None
    """Maximum number of requests that run at once: rows of the device table. None: the platform's default."""
    max_num_batched_tokens: int | None = None
    """Maximum number of tokens per step, filled if prompts wait; longer prompts are cut into chunks. None: enough for
    max_num_seqs requests with their drafts, plus the platform's default number of prompt tokens; where step times are
    measured, a step then takes as many as these suggest."""
    block_size: int = 16
    """Number of tokens per KV block: 16, 32 or 64."""
    num_gpu_blocks_override: int | None = None
    """Number of KV blocks, instead of the number that fits the memory (on every platform; the name is vLLM's)."""
    gpu_memory_utilization: float = 0.9
    """Fraction of the device's memory to use; on a CPU the fraction of a fixed 1 GiB of KV cache."""
    enforce_eager: bool = False
    """Launch every step kernel by kernel, without CUDA graphs."""
    enable_prefix_caching: bool = True
    """Reuse confirmed KV blocks of equal prefixes."""
    attention_backend: str = "auto"
    """File name of a backend in `outrider/attention/backends`; "auto" picks the first that supports the model."""
    load_format: str = "auto"
    """"auto" reads the model's files; "dummy" draws random weights from `seed`."""
    quantization: str | None = None
    """"fp8" rounds the weights of a plain model to FP8 while they are loaded, with a scale per channel and per token;
    None: they stay as in the files. Quantised files say themselves how they are read."""
    generation_config: str = "auto"
    """"auto": sampling parameters of the model's generation_config.json apply where a request says nothing; "none":
    they are ignored."""
    speculative: SpeculativeConfig | None = None
    """The parsed `speculative_config` argument; None: no drafter."""
    overlap_depth: int = 1
    """Number of steps in flight while the next one is planned: 0 or 1."""
    logits_digest: bool = False
    """Hash the fp32 logits of every emitted token, to compare two runs by more than their tokens."""

    def __post_init__(self) -> None:
        top = 2**31 - 1
        if self.max_model_len is not None:
            check_integer(
                "max_model_len", self.max_model_len, low=2, high=top, remedy="Leave it unset for the model's limit."
            )
        if self.max_num_seqs is not None:
            check_integer(
                "max_num_seqs", self.max_num_seqs, low=1, high=4096, remedy="Leave it unset for the platform's default."
            )
        if self.max_num_batched_tokens is not None:
            low = 1 + self.num_speculative_tokens
            check_integer(
                "max_num_batched_tokens",
                self.max_num_batched_tokens,
                low=low,
                high=2**20,
                remedy=f"One request takes {low} tokens per step: its last token and its drafts.",
            )
        check_integer("overlap_depth", self.overlap_depth, low=0, high=1, remedy="1 is the default.")
        check_text("model", self.model)
        for name in ("revision", "download_dir"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        if not isinstance(self.hf_token, (str, bool, type(None))):  # its value is a secret
            raise ConfigError(f"hf_token is of type {type(self.hf_token).__name__}. Give a string, True or False.")
        check_integer("seed", self.seed, low=-(2**63), high=2**63 - 1, remedy="0 is the default.")
        for name in ("enforce_eager", "enable_prefix_caching", "logits_digest"):
            check_flag(name, getattr(self, name))
        check_integer("block_size", self.block_size, low=16, high=64, remedy="16 is the default.")
        if self.block_size not in (16, 32, 64):
            raise ConfigError(f"block_size={self.block_size!r} is not supported; it takes 16, 32 or 64.")
        if self.num_gpu_blocks_override is not None:
            check_integer(
                "num_gpu_blocks_override",
                self.num_gpu_blocks_override,
                low=2,
                high=top,
                remedy="Leave it unset to use the memory that is free.",
            )
        share: Any = self.gpu_memory_utilization
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share <= 1.0:
            raise ConfigError(f"gpu_memory_utilization={share!r} is out of range: a number above 0, at most 1.")
        if self.runner not in RUNNERS:
            raise ConfigError(f"runner={self.runner!r} is not known; it takes {', '.join(map(repr, RUNNERS))}.")
        if self.load_format not in ("auto", "dummy"):
            raise ConfigError(f"load_format={self.load_format!r} is not known; it takes 'auto' or 'dummy'.")
        _check_quantization("quantization", self.quantization)
        if self.generation_config not in ("auto", "none"):
            raise ConfigError(f"generation_config={self.generation_config!r} is not known; it takes 'auto' or 'none'.")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"dtype={self.dtype!r} is not known; it takes 'auto', 'float32' or 'bfloat16'.")

    @property
    def num_speculative_tokens(self) -> int:
        """Number of drafts per step, k; 0 without a drafter."""
        return self.speculative.num_speculative_tokens if self.speculative else 0

    @property
    def draft_widths(self) -> tuple[int, ...]:
        """Numbers of drafts that a step may have, ascending."""
        return self.speculative.draft_widths if self.speculative else (0,)

    def resolve(self, *, max_num_seqs: int, num_prompt_tokens: int, token_multiple: int = 1) -> "EngineConfig":
        """A new config in which step sizes that were not given have the platform's defaults; the default number of
        tokens is rounded up to a multiple of `token_multiple`."""
        num_rows = self.max_num_seqs or max_num_seqs
        num_tokens = num_prompt_tokens + num_rows * (1 + self.num_speculative_tokens)
        num_tokens = self.max_num_batched_tokens or -(-num_tokens // token_multiple) * token_multiple
        return replace(self, max_num_seqs=num_rows, max_num_batched_tokens=num_tokens)

    @property
    def num_rows(self) -> int:
        """`max_num_seqs` of a resolved config."""
        assert self.max_num_seqs is not None, "resolve() gives the platform's number of rows"
        return self.max_num_seqs

    @property
    def step_token_budget(self) -> int:
        """`max_num_batched_tokens` of a resolved config."""
        assert self.max_num_batched_tokens is not None, "resolve() gives the platform's number of tokens per step"
        return self.max_num_batched_tokens


_NOT_BUILT = {
    "tensor_parallel_size": 1,
    "data_parallel_size": 1,
    "enable_expert_parallel": False,
    "limit_mm_per_prompt": None,
}


def engine_config(model: str, **options: Any) -> EngineConfig:
    """Makes an `EngineConfig` from the arguments of `LLM`.

    Raises ConfigError for an unknown option or a wrong value, UnsupportedError for an option that is not supported.
    """
    for name, neutral in _NOT_BUILT.items():
        value = options.pop(name, neutral)
        if value != neutral:
            raise UnsupportedError(f"{name}={value!r} is not supported; leave it at {neutral!r}.")
    speculative = options.pop("speculative_config", None)
    known = EngineConfig.__dataclass_fields__.keys() - {"model", "speculative"}
    for name in options:
        if name not in known:
            raise ConfigError(
                f"option {name!r} is not known. Known: {', '.join(sorted(known | {'speculative_config'}))}."
            )
    return EngineConfig(
        model=model,
        speculative=SpeculativeConfig.from_dict(speculative) if speculative is not None else None,
        **options,
    )
