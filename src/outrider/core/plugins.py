"""Finding a plug-in by its file name: models, drafters, attention backends and platforms.

The file's name is its name: there is no table to edit. A folder added to a package's `__path__` is searched
too, which is how a test adds a drafter by adding one file.
"""

import importlib
import pkgutil
from types import ModuleType

from outrider.core.errors import ConfigError


def names(package: ModuleType) -> list[str]:
    """The plug-ins of `package`, sorted."""
    return sorted(info.name for info in pkgutil.iter_modules(package.__path__))


def find(package: ModuleType, name: str, *, what: str) -> ModuleType:
    """The module of `package` called `name`; `what` is the noun used in the error."""
    known = names(package)
    if name not in known:
        raise ConfigError(f"{what} {name!r} is not known. Known: {', '.join(known)}.")
    return importlib.import_module(f"{package.__name__}.{name}")
