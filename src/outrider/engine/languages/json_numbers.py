"""Numbers in JSON schemas: read exactly, and refused where llguidance would keep another number.

llguidance reads numbers as doubles and writes them back with the fewest digits that give the same double.
"""

import json
from decimal import Decimal
from typing import Any, NoReturn

from outrider.core.errors import RequestError

Number = int | Decimal
MAX_EXACT = 2**53
"""Every whole number up to here is a double, and is written back as it was."""
MAX_INTEGER = 2**63 - 2**10
"""Largest double that is an integer of 64 bits: bounds of integers are kept up to here."""


def load_exactly(text: str) -> Any:
    """JSON as Python values, with every digit of its numbers. Raises RequestError."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    except RecursionError:
        raise RequestError("structured_outputs: json is nested too deeply. Give a flatter schema.") from None
    except ValueError as error:
        raise RequestError(f"structured_outputs: json is not JSON: {error}. Correct it.") from None


def is_number(value: Any) -> bool:
    """True for numbers, false for booleans, which are ints in Python."""
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def exact(value: int | float | Decimal) -> Number:
    """The number as an int if it is whole, else as a decimal."""
    number = value if isinstance(value, (int, Decimal)) else Decimal(repr(value))
    if isinstance(number, Decimal) and not number.is_finite():
        _refuse_constant(str(value))
    if isinstance(number, Decimal) and number.adjusted() < 400 and number == number.to_integral_value():
        return int(number)
    return number


def checked(number: Number, *, keyword: str, is_whole: bool) -> int | float:
    """The number as llguidance can keep it. `is_whole`: only integers are compared with it. Raises RequestError."""
    if isinstance(number, int):
        if abs(number) <= MAX_EXACT or (is_whole and abs(number) <= MAX_INTEGER and int(float(number)) == number):
            return number
    else:
        double = float(number) if abs(number) < MAX_EXACT else float("inf")
        if Decimal(repr(double)) == number:
            return double
    raise RequestError(
        f"structured_outputs: the number {_short(number)} of {keyword!r} cannot be kept exactly: numbers are doubles "
        f"of at most 2**53 = {MAX_EXACT}. Use a smaller number or fewer digits, or a string with an enum or a pattern."
    )


def _short(number: Number) -> str:
    text = str(number)
    return text if len(text) <= 40 else f"{text[:30]}…"


def _refuse_constant(name: str) -> NoReturn:
    raise RequestError(f"structured_outputs: json holds the number {name}, which is not finite. Correct the schema.")
