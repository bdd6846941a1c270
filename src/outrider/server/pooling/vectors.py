"""Values of a pooling model in JSON: numbers, or base64 of little-endian fp32. Both hold the same bits."""

import base64
import sys
from typing import Any, Literal

from outrider.core.pooling import PoolingOutput

Encoding = Literal["float", "base64"]


def encoded(output: PoolingOutput, encoding: Encoding) -> Any:
    """The JSON value: a list of numbers (a list of lists for a task by token), or one text, row after row.

    A number is written with all digits of the double that it is, so every client reads the same float."""
    if encoding == "float":
        return output.data
    values = output.values
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode("ascii")
