"""Finding a plug-in: models, drafters, attention backends, platforms and tool parsers.

A plug-in is a module in a folder of this package, found by its file name: there is no table to edit. A drafter may also
be a module outside this package, named by its full dotted path.
"""

import importlib
import pkgutil
from types import ModuleType

from outrider.core.errors import ConfigError


def names(package: ModuleType) -> list[str]:
    """Names of the plug-ins in `package`, sorted."""
    return sorted(info.name for info in pkgutil.iter_modules(package.__path__))


def find(package: ModuleType, name: str, *, what: str) -> ModuleType:
    """Import the plug-in `name` of `package`. `what` is the noun that the error uses.

    Raises ConfigError where `package` has no such plug-in.
    """
    known = names(package)
    if name not in known:
        raise ConfigError(f"{what} {name!r} is not known. Known: {', '.join(known)}.")
    return importlib.import_module(f"{package.__name__}.{name}")


def find_or_import(package: ModuleType, name: str, *, what: str) -> ModuleType:
    """Import the plug-in `name` of `package`, or, where `name` has a dot, the module with that full path.

    Raises ConfigError where there is no such plug-in or module. An error inside the module is raised as it is.
    """
    if "." not in name:
        try:
            return find(package, name, what=what)
        except ConfigError as error:
            raise ConfigError(
                f"{error} Name a module of your own by its full path, such as 'my_package.{name}'."
            ) from None
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{what} {name!r} is not a module path. Write it as in an import: 'my_package.my_module'.")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module exists, and something that it imports does not
        raise ConfigError(
            f"{what} {name!r} cannot be imported: {error}. Install its package in this environment, or add its folder"
            " to PYTHONPATH."
        ) from error
