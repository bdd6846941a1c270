"""Finds the zoo, the small models of this repository: beside the source, or in the installed package `outrider-zoo`."""

from importlib.util import find_spec
from pathlib import Path

from outrider.core.errors import ConfigError

_CHECKOUT = Path(__file__).resolve().parents[3] / "zoo"
_PACKAGE = "outrider_zoo"
_PREFIX = "zoo/"


def zoo() -> Path | None:
    """Directory of the zoo; None if there is none."""
    spec = find_spec(_PACKAGE)
    installed = (Path(entry) for entry in (spec.submodule_search_locations or ()) if spec) if spec else ()
    for directory in (_CHECKOUT, *installed):
        if (directory / "tiny" / "config.json").is_file():
            return directory
    return None


def shipped(name: str) -> str:
    """Directory of the zoo's model `name`, such as "tiny". Raises ConfigError if there is none."""
    directory = zoo()
    if directory is None:
        raise ConfigError(
            f"the model zoo/{name} was not found: the zoo is a package of its own. Install it (pip install"
            " outrider-zoo), name another model, or run from a checkout of the repository."
        )
    if not (directory / name / "config.json").is_file():
        names = ", ".join(sorted(f"{_PREFIX}{path.parent.name}" for path in directory.glob("*/config.json")))
        raise ConfigError(f"the zoo has no model {_PREFIX}{name}. It has {names}.")
    return str(directory / name)


def is_zoo_name(model: str) -> bool:
    """True for "zoo/NAME": such a name is never looked for elsewhere."""
    return model.startswith(_PREFIX) and model.count("/") == 1
