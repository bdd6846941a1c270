"""The errors a user can cause. Each message names the value, the reason and the remedy.

What only the engine itself can break is an `assert`, not one of these.
"""


class OutriderError(Exception):
    """Root of every error this package raises on purpose."""


class ConfigError(OutriderError, ValueError):
    """An option, or a combination of options, that cannot work."""


class UnsupportedError(ConfigError):
    """Something that Outrider does not support. The message names it."""


class CheckpointError(OutriderError, ValueError):
    """A model directory that cannot be read, or does not fit what its config says."""


class RequestError(OutriderError, ValueError):
    """One request that is refused at admission; all others go on."""


class EngineDeadError(OutriderError):
    """The engine process is not running."""
