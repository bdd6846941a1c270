"""The error of a gate that cannot give a verdict. It is not a regression: the exit code is 2, not 1."""

from outrider.core.errors import OutriderError


class GateError(OutriderError):
    """The gate could not run. The message names the value and the remedy."""
