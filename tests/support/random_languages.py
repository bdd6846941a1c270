"""Random regular expressions and JSON schemas for property tests, in the syntax that callers write."""

import random
from typing import Any

LETTERS = "abcxyz019 -_<|>/\"'é好🎉"
_CLASSES = (
    r"\d",
    r"\w",
    r"\s",
    r"\D",
    r"\W",
    r"\S",
    "[a-z]",
    "[^a-z]",
    r"[\w.-]",
    r"[^\s]",
    r"[^\W\d]",
    "[]a-]",
    "[&&|]",
    "[é-ü]",
    ".",
)
_REPEATS = ("*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}", "*?", "+?", "??", "{,2}")


def random_regex(dice: random.Random, depth: int = 3) -> str:
    """A regular expression that Python's re reads."""
    kind = dice.randrange(12) if depth else dice.randrange(4)
    if kind < 3:
        return "".join(_literal(dice) for _ in range(dice.randint(1, 3)))
    if kind < 5:
        return dice.choice(_CLASSES)
    if kind < 8:
        inner = random_regex(dice, depth - 1)
        opener = dice.choice(("(", "(?:", f"(?P<n{dice.randrange(10**6)}>"))
        return f"{opener}{inner}){dice.choice(_REPEATS)}"
    if kind < 10:
        return random_regex(dice, depth - 1) + random_regex(dice, depth - 1)
    return f"({random_regex(dice, depth - 1)}|{random_regex(dice, depth - 1)})"


def _literal(dice: random.Random) -> str:
    character = dice.choice(LETTERS)
    form = dice.randrange(8)
    if form == 0:
        return (
            f"\\x{ord(character):02x}"
            if ord(character) < 256
            else f"\\u{ord(character):04x}"
            if ord(character) < 65536
            else character
        )
    if form == 1 and not character.isalnum() and character != "_":
        return "\\" + character
    return "\\" + character if character in "|" else character


def random_schema(dice: random.Random, depth: int = 3) -> dict[str, Any]:
    """A schema with definitions that refer to each other, may be empty, and may contradict themselves."""
    names = [f"d{i}" for i in range(dice.randrange(4))]
    drawing = _Drawing(dice, names)
    schema = drawing.schema(depth)
    if names:
        schema = {"$defs": {name: drawing.schema(depth - 1) for name in names}} | schema
    return schema


def keyword_soup(dice: random.Random) -> dict[str, Any]:
    """A schema of any keywords beside each other, whether they belong together or not."""
    soup = {"$defs": {name: _soup(dice, 1) for name in ("a", "b")}} | _soup(dice, 2)
    return {key: soup[key] for key in dice.sample(list(soup), len(soup))}


_NAMES = ("a", "b", "c", "<|im_end|>", "é")
_KINDS = ("null", "boolean", "integer", "number", "string", "array", "object")


def _soup(dice: random.Random, depth: int) -> dict[str, Any]:
    def small() -> int:
        return dice.randrange(5)

    def number() -> int | float:
        return dice.choice((dice.randint(-9, 9), dice.randint(-(10**9), 10**9), round(dice.gauss(0, 9), 3), 1e-5))

    def part() -> Any:
        return dice.random() < 0.6 if dice.random() < 0.15 else _soup(dice, depth - 1)

    drawing = _Drawing(dice, [])
    leaves: dict[str, Any] = {
        "type": lambda: dice.choice(_KINDS) if dice.random() < 0.7 else dice.sample(_KINDS, dice.randint(1, 3)),
        "minimum": number, "maximum": number, "exclusiveMinimum": number, "exclusiveMaximum": number,
        "multipleOf": lambda: dice.choice((1, 2, 3, 0.5, 0.1, 12)),
        "minLength": small, "maxLength": small,
        "pattern": lambda: dice.choice(("^a", "b$", "^[ab]*$", r"\d", r"^\w+$", "^<.*>$", random_regex(dice, 1))),
        "format": lambda: dice.choice(("date", "ipv4", "uuid")),
        "minItems": small, "maxItems": small, "minProperties": small, "maxProperties": small,
        "required": lambda: dice.sample(_NAMES, dice.randrange(3)),
        "enum": lambda: [drawing.value(1) for _ in range(dice.randint(1, 3))],
        "const": lambda: drawing.value(1),
        "title": lambda: "t", "uniqueItems": lambda: False,
        "$ref": lambda: dice.choice(("#", "#/$defs/a", "#/$defs/b", "#/$defs/a")),
    }  # fmt: skip
    inner: dict[str, Any] = {
        "items": part, "additionalProperties": part,
        "properties": lambda: {name: part() for name in dice.sample(_NAMES, dice.randrange(4))},
        "patternProperties": lambda: {dice.choice(("^a", "b$")): part()},
        "prefixItems": lambda: [part() for _ in range(dice.randint(1, 2))],
        "allOf": lambda: [part() for _ in range(dice.randint(1, 2))],
        "anyOf": lambda: [part() for _ in range(dice.randint(1, 3))],
        "oneOf": lambda: [part() for _ in range(dice.randint(1, 2))],
    }  # fmt: skip
    makers = leaves | inner if depth > 0 else leaves
    return {key: makers[key]() for key in dice.sample(list(makers), dice.randrange(5))}


def some_values(dice: random.Random) -> list[Any]:
    """Values of every kind: a schema that one of them meets is not empty."""
    drawing = _Drawing(dice, [])
    scalars = [
        None,
        True,
        False,
        *range(-12, 13),
        0.5,
        0.1,
        -1.5,
        10**6,
        "",
        "a",
        "b",
        "ab",
        "0",
        "<a>",
        "<|im_end|>",
        "é",
        "aaa",
    ]
    lists = [[one] * count for one in scalars[:8] for count in range(4)]
    objects = [dict.fromkeys(names, one) for names in ("a", "b", "ab", "abc", "c") for one in (None, 1, "a", {}, [])]
    return [*scalars, *lists, *objects, [], {}, *(drawing.value(2) for _ in range(40))]


class _Drawing:
    def __init__(self, dice: random.Random, names: list[str]) -> None:
        self._dice = dice
        self._names = names

    def schema(self, depth: int) -> dict[str, Any]:
        dice = self._dice
        kind = dice.randrange(14)
        if kind == 0 and self._names:
            return {"$ref": f"#/$defs/{dice.choice(self._names)}"}
        if kind == 1 and depth:
            return {
                dice.choice(("anyOf", "anyOf", "oneOf")): [self.schema(depth - 1) for _ in range(dice.randint(1, 3))]
            }
        if kind == 2 and depth:
            return {"allOf": [self.schema(depth - 1) for _ in range(dice.randint(1, 2))]}
        if kind == 3:
            return {"enum": [self.value(2) for _ in range(dice.randint(1, 3))]}
        if kind == 4:
            return {"const": self.value(2)}
        if kind < 8 and depth:
            return self.object(depth)
        if kind < 10 and depth:
            return self.array(depth)
        return dice.choice((self.number, self.string, self.number, self.string, self.other))()

    def other(self) -> dict[str, Any]:
        return self._dice.choice(({"type": "null"}, {"type": "boolean"}, {"type": ["null", "integer"]}, {}))

    def number(self) -> dict[str, Any]:
        dice = self._dice
        schema: dict[str, Any] = {"type": dice.choice(("integer", "number"))}
        if dice.random() < 0.6:
            schema[dice.choice(("minimum", "exclusiveMinimum"))] = self.bound()
        if dice.random() < 0.6:
            schema[dice.choice(("maximum", "exclusiveMaximum"))] = self.bound()
        if dice.random() < 0.3:
            schema["multipleOf"] = dice.choice((2, 3, 7, 10, 0.5, 0.1, 0.01, 1.5, 0.25))
        return schema

    def bound(self) -> int | float:
        dice = self._dice
        return dice.choice(
            (dice.randint(-20, 20), dice.randint(-(10**6), 10**6), round(dice.uniform(-50, 50), 2), 2**53, -(2**53))
        )

    def string(self) -> dict[str, Any]:
        dice = self._dice
        schema: dict[str, Any] = {"type": "string"}
        if dice.random() < 0.4:
            schema["minLength"] = dice.randrange(4)
        if dice.random() < 0.5:
            schema["maxLength"] = dice.randrange(6)
        if dice.random() < 0.4:
            pattern = random_regex(dice, 2)
            schema["pattern"] = dice.choice(("{}", "^{}$", "^{}", "{}$", "^(?:{})$")).format(pattern)
        elif dice.random() < 0.2:
            schema["format"] = dice.choice(("date", "time", "date-time", "uuid", "ipv4", "email"))
        return schema

    def array(self, depth: int) -> dict[str, Any]:
        dice = self._dice
        schema: dict[str, Any] = {"type": "array"}
        if dice.random() < 0.6:
            schema["items"] = self.part(depth)
        if dice.random() < 0.3:
            schema["prefixItems"] = [self.part(depth) for _ in range(dice.randint(1, 2))]
        if dice.random() < 0.4:
            schema["minItems"] = dice.randrange(3)
        if dice.random() < 0.7:
            schema["maxItems"] = dice.randrange(4)
        return schema

    def object(self, depth: int) -> dict[str, Any]:
        dice = self._dice
        names = dice.sample(["a", "b", "c", "<|im_end|>", 'q"', "é", "a b"], dice.randrange(4))
        schema: dict[str, Any] = {"type": "object", "properties": {name: self.part(depth) for name in names}}
        if dice.random() < 0.7:
            required = dice.sample(names, dice.randint(0, len(names)))
            schema["required"] = required + (["z"] if dice.random() < 0.1 else [])
        if dice.random() < 0.7:
            schema["additionalProperties"] = False if dice.random() < 0.6 else self.part(depth)
        if dice.random() < 0.2:
            schema["patternProperties"] = {dice.choice(("^a", "b$", "^x_", "[0-9]")): self.part(depth)}
        if dice.random() < 0.15:
            schema["minProperties"] = dice.randrange(3)
        if dice.random() < 0.15:
            schema["maxProperties"] = dice.randrange(3)
        return {key: schema[key] for key in dice.sample(list(schema), len(schema))}

    def part(self, depth: int) -> Any:
        return self._dice.random() < 0.5 if self._dice.random() < 0.08 else self.schema(depth - 1)

    def value(self, depth: int) -> Any:
        dice = self._dice
        kind = dice.randrange(8 if depth else 6)
        if kind < 2:
            return dice.choice((None, True, False))
        if kind < 4:
            return dice.choice((0, 1, -7, 2**53, 2.5, -0.125, 1e20, 1e-7, 3.0))
        if kind < 6:
            return dice.choice(("", "a", "<|im_end|>", 'q"\\', "é\n", "🎉"))
        if kind == 6:
            return [self.value(depth - 1) for _ in range(dice.randrange(3))]
        return {name: self.value(depth - 1) for name in dice.sample(["a", "b", "é"], dice.randrange(3))}
