"""One computation written out: which facts it uses, which of them are held out, how it is spelled.

A fact is `left operator right`. Table facts (what a child knows by heart) are never held out; of the
others a fixed tenth, chosen by hash, never occurs in training. Knows nothing of stories.
"""

from dataclasses import dataclass
from hashlib import blake2b

HELD_OUT_SHARE = 10  # one in ten


@dataclass(frozen=True, slots=True)
class Fact:
    left: int
    operator: str
    right: int

    @property
    def value(self) -> int:
        if self.operator == "+":
            return self.left + self.right
        if self.operator == "-":
            return self.left - self.right
        if self.operator == "*":
            return self.left * self.right
        assert self.left % self.right == 0, f"{self} is not exact"
        return self.left // self.right

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right}"


def bucket(text: str) -> int:
    """A fixed number in 0 … HELD_OUT_SHARE - 1; bucket 0 is held out."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") % HELD_OUT_SHARE


def is_round(number: int) -> bool:
    """One digit followed by zeros, as 7, 40, 300."""
    return str(number).rstrip("0").isdigit() and len(str(number).rstrip("0")) == 1


def is_table(fact: Fact) -> bool:
    left, right = fact.left, fact.right
    if fact.operator == "+":
        return left <= 12 and right <= 12
    if fact.operator == "-":
        return right <= 12 and left - right <= 12
    if fact.operator == "/":
        left = left // right
    return (left <= 12 or is_round(left)) and (right <= 12 or is_round(right))


def is_held_out(fact: Fact) -> bool:
    if is_table(fact):
        return False
    commutes = fact.operator in "+*"
    left, right = sorted((fact.left, fact.right)) if commutes else (fact.left, fact.right)
    return bucket(f"{left}{fact.operator}{right}") == 0


def is_in_scope(fact: Fact) -> bool:
    """Small enough to be spelled by `spell`: results of at most 999, one factor of a product at most 12 or round."""
    if not (0 < fact.left <= 999 and 0 < fact.right <= 999):
        return False
    if fact.operator == "/":
        if fact.left % fact.right:
            return False
        return fact.right <= 12 or is_table(fact)
    if not 0 < fact.value <= 999:
        return False
    if fact.operator == "*":
        small, large = sorted((fact.left, fact.right))
        return is_table(fact) or (small <= 12 and large <= 99)
    return True


def spell(fact: Fact) -> tuple[str, list[Fact]]:
    """The computation as text, `left operator right = … = value`, and every fact that the text states."""
    if fact.operator in "+-" or is_table(fact):
        return f"{fact} = {fact.value}", [fact]
    if fact.operator == "*":
        small, large = sorted((fact.left, fact.right))
        parts = [Fact(piece, "*", small) for piece in _tens_and_ones(large)]
    else:
        parts = [Fact(piece * fact.right, "/", fact.right) for piece in _tens_and_ones(fact.value)]
    total = parts[0].value
    text = f"{fact} = {' + '.join(map(str, parts))}"
    stated = [fact, *parts]
    if len(parts) > 1:
        text += f" = {' + '.join(str(part.value) for part in parts)}"
    for part in parts[1:]:
        stated.append(Fact(total, "+", part.value))
        total += part.value
    return f"{text} = {total}", stated


def _tens_and_ones(number: int) -> list[int]:
    tens, ones = number // 10 * 10, number % 10
    return [piece for piece in (tens, ones) if piece]
