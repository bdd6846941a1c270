"""Sources of counts: an engine in this process, or a server. Turns command line options into a measurement."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outrider.arguments import drafter_of, parsed_drafter
from outrider.gate.baseline import RUN, Baseline, Settings
from outrider.gate.endpoint import Server, measure_endpoint
from outrider.gate.errors import GateError
from outrider.gate.measure import measure, open_engine
from outrider.gate.prompts import Prompt, digest_of, read_prompts
from outrider.gate.requirements import check_backend, check_memory
from outrider.gate.sample import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The source to measure and its options."""

    endpoint: str | None
    device: str = "auto"
    attention_backend: str = "auto"
    max_model_len: int | None = None

    def measure(self, settings: Settings, prompts: Sequence[Prompt]) -> Measurement:
        """Run the prompts. Raises GateError if the counts cannot be trusted."""
        run: dict[str, Any] = {
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "seed": settings.seed,
            "all_turns": settings.all_turns,
        }
        if self.endpoint is not None:
            server = Server(self.endpoint, settings.model)
            return measure_endpoint(
                server, prompts, num_drafts=settings.speculative_config.get("num_speculative_tokens"), **run
            )
        check_memory(settings, self.device)
        llm = open_engine(settings.model, settings.speculative_config, **self.engine_options())
        check_backend(settings, llm)
        return measure(llm, prompts, **run)

    def engine_options(self) -> dict[str, Any]:
        """Options of `LLM` from the command line."""
        return {
            "device": self.device,
            "attention_backend": self.attention_backend,
            "max_model_len": self.max_model_len,
        }


def parse_speculative(text: str) -> dict[str, Any]:
    """Parses a `speculative_config` from JSON; {} for "none". Raises ConfigError, or GateError if it is adaptive."""
    values = parsed_drafter(text) or {}
    if values.get("adaptive"):
        raise GateError(
            "speculative_config['adaptive']=true is not gated: drafts then depend on the time that steps take, and "
            "counts of two runs cannot be compared. Leave it out; it changes no token."
        )
    return values


def drafter_to_gate(model: str, given: str | None) -> dict[str, Any]:
    """The drafter of a command: as given, else the head of zoo/tiny for that model; {} for none.

    `model` is "" for a server's, whose drafter is known to the server only.
    """
    return (drafter_of(model, None) if model else None) or {} if given is None else parse_speculative(given)


def settings_for_check(baseline: Baseline, **given: Any) -> Settings:
    """Returns the baseline's settings with other paths of model, drafter and prompts; refuses any other change by name.

    `given`: model, speculative_config, prompts and the fields of RUN; None for options that were not given.
    """
    settings = baseline.settings
    for name in ("max_tokens", "temperature", "seed", "all_turns"):
        value = given.get(name)
        if value is not None and value != getattr(settings, name):
            raise GateError(
                f"{name}={value!r} is not the baseline's {getattr(settings, name)!r}: their rates cannot "
                "be compared. Leave it out, or record again."
            )
    speculative = dict(given.get("speculative_config") or settings.speculative_config)
    k = speculative.setdefault("num_speculative_tokens", settings.num_speculative_tokens)
    if k != settings.num_speculative_tokens:
        raise GateError(
            f"num_speculative_tokens={k!r} is not the baseline's {settings.num_speculative_tokens}: the gate pins k. "
            "Leave it out, or record again."
        )
    places = {name: given[name] for name in ("model", "prompts") if given.get(name) is not None}
    known = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
    return Settings(**{**known, **places, "speculative_config": speculative})


def prompts_for_check(settings: Settings) -> list[Prompt]:
    """Reads the prompts. Raises GateError if they are not those of the baseline."""
    prompts = read_prompts(Path(settings.prompts))
    if digest_of(prompts) != settings.prompts_digest:
        raise GateError(
            f"{settings.prompts} is not the prompt file of the baseline (digest {digest_of(prompts)}, recorded "
            f"{settings.prompts_digest}). Use that file, or record again."
        )
    return prompts


def check_k(measurement: Measurement, settings: Settings) -> None:
    """Raises GateError if a server drafts with another k than the baseline pins."""
    if measurement.num_drafts != settings.num_speculative_tokens:
        raise GateError(
            f"what was measured has k = {measurement.num_drafts}, the baseline pins {settings.num_speculative_tokens}. "
            "Start the server with that k, or record again."
        )


def check_same_run(settings: Settings, recorded: Settings, path: Path) -> None:
    """Raises GateError if a platform would be added to a file of another run."""
    for name in RUN:
        if getattr(settings, name) != getattr(recorded, name):
            raise GateError(
                f"{path} was recorded with {name}={getattr(recorded, name)!r}, this is {getattr(settings, name)!r}. "
                "Platforms of one file share the run: use another file, or delete this one."
            )
