"""The options of an engine, checked where they are made. Resolving "auto" returns a new config.

The model's own config.json is `core/model_config.py`; nothing here reads a file.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from outrider.core.errors import ConfigError, UnsupportedError

MAX_DRAFTS = 16
"""Most drafts in one step."""

_SPECULATIVE_KEYS = (
    "method",
    "model",
    "num_speculative_tokens",
    "adaptive",
    "prompt_lookup_min",
    "prompt_lookup_max",
    "max_model_len",
    "aux_hidden_state_layer_ids",
    "options",
    "rejection_sample_method",
    "synthetic_acceptance_rates",
    "synthetic_acceptance_length",
)


def _check_range(name: str, value: Any, low: int, high: int, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name}={value!r} is out of range: it takes an integer from {low} to {high}. {remedy}")


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculativeConfig:
    """Which drafter runs and how far it looks ahead. It can change speed only."""

    method: str
    """File name of a drafter in `outrider/speculation/drafters`, or the module path of one in another package."""
    model: str | None = None
    """Directory of the drafter's weights, where it has any."""
    num_speculative_tokens: int = 3
    """k: drafts per step."""
    adaptive: bool = False
    """Each step has 0 … k drafts, as many as its load and the acceptance so far make worth their time."""
    prompt_lookup_min: int = 2
    """n-gram: shortest suffix that is looked up."""
    prompt_lookup_max: int = 4
    """n-gram: longest suffix that is looked up."""
    max_model_len: int | None = None
    """Positions from here on are not drafted; the request goes on without drafts."""
    aux_hidden_state_layer_ids: tuple[int, ...] | None = None
    """EAGLE-3: override of the head's own list; id k is the residual stream after k layers."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options that only this drafter knows; it refuses those it does not."""
    rejection_sample_method: str = "standard"
    """"standard": a draft is accepted where it equals the sample. "synthetic", for benchmarks: at the rates below,
    whatever it is; the engine is then not exact, and says so."""
    synthetic_acceptance_rates: tuple[float, ...] | None = None
    """Synthetic: share of steps that accept draft i and all before it; one for each draft, non-increasing."""
    synthetic_acceptance_length: float | None = None
    """Synthetic, in place of rates: mean tokens of a step with drafts, 1 to k + 1."""

    def __post_init__(self) -> None:
        _check_range("num_speculative_tokens", self.num_speculative_tokens, 1, MAX_DRAFTS, "3 is a good start.")
        _check_range("prompt_lookup_min", self.prompt_lookup_min, 1, 64, "2 is the default.")
        _check_range("prompt_lookup_max", self.prompt_lookup_max, 1, 64, "4 is the default.")
        if not isinstance(self.adaptive, bool):
            raise ConfigError(f"speculative_config['adaptive']={self.adaptive!r} is no choice; it takes True or False.")
        if self.prompt_lookup_min > self.prompt_lookup_max:
            raise ConfigError(
                f"prompt_lookup_min={self.prompt_lookup_min} is above prompt_lookup_max={self.prompt_lookup_max}."
                " Lower prompt_lookup_min."
            )
        if self.max_model_len is not None:
            _check_range("speculative max_model_len", self.max_model_len, 1, 2**31 - 1, "Leave it unset.")
        self._check_synthetic()
        if not isinstance(self.method, str):
            raise ConfigError(
                f"speculative_config['method']={self.method!r} must be a string. Use 'eagle3' or 'ngram'."
            )
        if not isinstance(self.options, dict):
            raise ConfigError(f"speculative_config['options']={self.options!r} is not a dict. Leave it unset.")

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
            is_falling = all(_is_number(rate, 0.0, 1.0) for rate in rates) and list(rates) == sorted(rates)[::-1]
            if len(rates) != k or not is_falling:
                raise ConfigError(
                    f"synthetic_acceptance_rates={list(rates)!r} are not {k} numbers from 1 down to 0, none above the"
                    " one before it: rate i is the share of steps that accept draft i and all before it."
                )
        if length is not None and not _is_number(length, 1.0, k + 1.0):
            raise ConfigError(f"synthetic_acceptance_length={length!r} is not a number from 1 to {k + 1}.")

    @property
    def draft_widths(self) -> tuple[int, ...]:
        """Numbers of drafts that a step may have, ascending: few, because each is a graph of its own."""
        most = self.num_speculative_tokens
        return tuple(sorted({0, 1, min(2, most), (most + 1) // 2, most})) if self.adaptive else (most,)

    @property
    def acceptance_rates(self) -> tuple[float, ...] | None:
        """Rate of each draft where acceptance is synthetic. A length is spread with the least variance: 1, …, 1, the
        rest, 0, …"""
        if self.synthetic_acceptance_length is None:
            return self.synthetic_acceptance_rates
        accepted = self.synthetic_acceptance_length - 1.0
        return tuple(min(max(accepted - place, 0.0), 1.0) for place in range(self.num_speculative_tokens))

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "SpeculativeConfig":
        """From the `speculative_config` argument; an unknown key is an error that names it."""
        if not isinstance(values, dict):
            raise ConfigError(f"speculative_config={values!r} is not a dict. Example: {{'method': 'ngram'}}.")
        for key in values:
            if key not in _SPECULATIVE_KEYS:
                raise ConfigError(f"speculative_config[{key!r}] is not known. Known: {', '.join(_SPECULATIVE_KEYS)}.")
        if "method" not in values:
            raise ConfigError("speculative_config has no 'method'. Use 'eagle3' or 'ngram'.")
        values = dict(values)
        layers = values.get("aux_hidden_state_layer_ids")
        if layers is not None:
            is_list = isinstance(layers, (list, tuple))
            if not is_list or not all(type(layer) is int and layer >= 0 for layer in layers):
                raise ConfigError(
                    f"speculative_config['aux_hidden_state_layer_ids']={layers!r} is not a list of layer numbers. "
                    "Leave it unset for the head's own."
                )
            values["aux_hidden_state_layer_ids"] = tuple(layers)
        rates = values.get("synthetic_acceptance_rates")
        if rates is not None:
            if not isinstance(rates, (list, tuple)):
                raise ConfigError(f"speculative_config['synthetic_acceptance_rates']={rates!r} is not a list.")
            values["synthetic_acceptance_rates"] = tuple(rates)
        return SpeculativeConfig(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Everything that shapes an engine, model directory included."""

    model: str
    device: str = "auto"
    """"auto", "cpu"; the platform's file name."""
    dtype: str = "auto"
    """"auto", "float32", "bfloat16": compute and KV dtype. A CPU computes in float32."""
    seed: int = 0
    """Seed of dummy weights, and of the seeds drawn for requests that have none."""
    max_model_len: int | None = None
    """Most tokens of one request; None takes the model's own limit."""
    max_num_seqs: int | None = None
    """Most requests that run at once: rows of the device table. None: the platform's own number."""
    max_num_batched_tokens: int | None = None
    """Most tokens in one step; longer prompts are cut into chunks. None: what max_num_seqs requests take with their
    drafts, and the platform's own number of prompt tokens."""
    block_size: int = 16
    """Tokens in one KV block."""
    num_gpu_blocks_override: int | None = None
    """KV blocks, in place of what memory sizing gives (on every platform; the name is vLLM's)."""
    gpu_memory_utilization: float = 0.9
    """Share of the device's memory to use; on a CPU a share of a fixed 1 GiB of KV cache."""
    enforce_eager: bool = False
    """Never capture graphs. A CPU has none."""
    enable_prefix_caching: bool = True
    """Reuse confirmed KV blocks of equal prefixes."""
    attention_backend: str = "auto"
    """File name of a backend in `outrider/attention/backends`; "auto" picks the first that fits."""
    load_format: str = "auto"
    """"auto" reads safetensors; "dummy" makes random weights of the config."""
    speculative: SpeculativeConfig | None = None
    overlap_depth: int = 1
    """Steps in flight while the next one is planned: 0 or 1."""
    logits_digest: bool = False
    """Hash the fp32 logits of every emitted token; equality of runs is then checked on more than tokens."""

    def __post_init__(self) -> None:
        top = 2**31 - 1
        if self.max_model_len is not None:
            _check_range("max_model_len", self.max_model_len, 2, top, "Leave it unset for the model's limit.")
        if self.max_num_seqs is not None:
            _check_range("max_num_seqs", self.max_num_seqs, 1, 4096, "Leave it unset for the platform's own.")
        if self.max_num_batched_tokens is not None:
            low = 1 + self.num_speculative_tokens
            _check_range(
                "max_num_batched_tokens",
                self.max_num_batched_tokens,
                low,
                2**20,
                f"One request takes {low} tokens a step: itself and its drafts.",
            )
        _check_range("overlap_depth", self.overlap_depth, 0, 1, "1 is the default.")
        _check_range("seed", self.seed, -(2**63), 2**63 - 1, "0 is the default.")
        for name in ("enforce_eager", "enable_prefix_caching", "logits_digest"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}={getattr(self, name)!r} is not a choice; it takes True or False.")
        _check_range("block_size", self.block_size, 16, 64, "16 is the default.")
        if self.block_size not in (16, 32, 64):
            raise ConfigError(f"block_size={self.block_size!r} is not supported; it takes 16, 32 or 64.")
        if self.num_gpu_blocks_override is not None:
            _check_range(
                "num_gpu_blocks_override",
                self.num_gpu_blocks_override,
                2,
                top,
                "Leave it unset to let memory decide.",
            )
        share: Any = self.gpu_memory_utilization
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share <= 1.0:
            raise ConfigError(f"gpu_memory_utilization={share!r} is out of range: a number above 0, at most 1.")
        if self.load_format not in ("auto", "dummy"):
            raise ConfigError(f"load_format={self.load_format!r} is not known; it takes 'auto' or 'dummy'.")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"dtype={self.dtype!r} is not known; it takes 'auto', 'float32' or 'bfloat16'.")

    @property
    def num_speculative_tokens(self) -> int:
        """k, or 0 without a drafter."""
        return self.speculative.num_speculative_tokens if self.speculative else 0

    @property
    def draft_widths(self) -> tuple[int, ...]:
        """Numbers of drafts that a step may have, ascending."""
        return self.speculative.draft_widths if self.speculative else (0,)

    def resolve(self, *, max_num_seqs: int, num_prompt_tokens: int) -> "EngineConfig":
        """The same with a platform's own sizes of a step where none were given."""
        num_rows = self.max_num_seqs or max_num_seqs
        num_tokens = self.max_num_batched_tokens or num_prompt_tokens + num_rows * (1 + self.num_speculative_tokens)
        return replace(self, max_num_seqs=num_rows, max_num_batched_tokens=num_tokens)

    @property
    def num_rows(self) -> int:
        """`max_num_seqs`, resolved."""
        assert self.max_num_seqs is not None, "the platform was not asked for its number of rows"
        return self.max_num_seqs

    @property
    def step_token_budget(self) -> int:
        """`max_num_batched_tokens`, resolved."""
        assert self.max_num_batched_tokens is not None, "the platform was not asked for its size of a step"
        return self.max_num_batched_tokens


_NOT_BUILT = {
    "tensor_parallel_size": 1,
    "data_parallel_size": 1,
    "enable_expert_parallel": False,
    "limit_mm_per_prompt": None,
}


def engine_config(model: str, **options: Any) -> EngineConfig:
    """`EngineConfig` from the arguments of `LLM`; unknown and unbuilt options are errors that name them."""
    for name, neutral in _NOT_BUILT.items():
        value = options.pop(name, neutral)
        if value != neutral:
            raise UnsupportedError(f"{name}={value!r} is not built yet; leave it at {neutral!r}.")
    speculative = options.pop("speculative_config", None)
    known = EngineConfig.__dataclass_fields__.keys() - {"model", "speculative"}
    for name in options:
        if name not in known:
            raise ConfigError(f"option {name!r} is not known. Known: {', '.join(sorted(known))}.")
    return EngineConfig(
        model=model,
        speculative=SpeculativeConfig.from_dict(speculative) if speculative is not None else None,
        **options,
    )
