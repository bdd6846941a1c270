"""Which parts of a JSON schema some finite value meets: a least fixpoint over its subschemas.

A set of subschemas stands for the values that meet them all. A set is inhabited if some type has a value whose parts
are values of inhabited sets; what only leads back to itself is not. Where the answer is not known (a pattern that no
one can read, a schema that grows too large), a set counts as inhabited: "empty" is certain.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

from outrider.core.errors import RequestError
from outrider.engine.languages.json_schema import Node, PlainSchema, parts

_MAX_BRANCHES = 256
"""Branches of a set, by anyOf and oneOf; a set with more counts as inhabited."""
_MAX_SETS = 20_000
"""Sets that are looked at; beyond, a set counts as inhabited."""
_ALL_TYPES = frozenset(("null", "boolean", "number", "string", "array", "object"))

Key = frozenset[int]
Strings = Callable[[dict[str, Any]], bool | None]
"""Answers whether some string meets a schema of string keywords, with allOf; None if that cannot be said."""


class Inhabitants:
    """The inhabited sets of one schema."""

    def __init__(self, schema: PlainSchema, *, has_string: Strings) -> None:
        self._definitions = schema.definitions
        self._has_string = has_string
        self._nodes: dict[int, Node] = {}
        self._kept: list[Node] = []  # so that no id comes twice
        self._constants: dict[int, Node] = {}
        self._strings: dict[str, bool | None] = {}
        self._found: dict[Key, bool] = {}
        self._waiting: deque[Key] = deque()
        self._readers: dict[Key, dict[Key, None]] = {}
        """Sets that need one without a value so far, in order."""
        self._looked_at: Key | None = None

    def has_value(self, *nodes: Node) -> bool:
        """False if certainly no finite value meets all of `nodes`."""
        key = self._key(nodes)
        if not self._value(key):
            self._settle()
        return self._found[key]

    def ask(self, *nodes: Node) -> None:
        """Announce that `has_value` will be asked: many questions are answered together."""
        self._value(self._key(nodes))

    def _settle(self) -> None:
        """The least fixpoint: a set is looked at again when one of those that it was seen to need has a value."""
        while self._waiting:
            asked = self._waiting.popleft()
            if self._found[asked]:
                continue
            self._looked_at = asked
            if self._is_inhabited([self._nodes[i] for i in sorted(asked)]):
                self._found[asked] = True
                self._waiting.extend(self._readers.pop(asked, ()))
        self._looked_at = None

    def _key(self, nodes: Iterable[Node]) -> Key:
        ids = set()
        for node in nodes:
            if node is True or node == {}:
                continue
            identity = id(node)
            if identity not in self._nodes:
                self._nodes[identity] = node
                self._kept.append(node)
            ids.add(identity)
        return frozenset(ids)

    def _value(self, key: Key) -> bool:
        """True if the set is known to be inhabited by now; a new set is looked at later."""
        if key not in self._found:
            self._found[key] = not key or len(self._found) > _MAX_SETS
            self._waiting.append(key)
        if not self._found[key] and self._looked_at is not None:
            self._readers.setdefault(key, {})[self._looked_at] = None
        return self._found[key]

    def _all(self, nodes: Iterable[Node]) -> bool:
        return self._value(self._key(nodes))

    def _is_inhabited(self, nodes: Sequence[Node]) -> bool:
        branches: list[list[dict[str, Any]]] = [[]]
        for node in nodes:
            branches = [one + other for one in branches for other in self._branches(node, frozenset())]
            if len(branches) > _MAX_BRANCHES:
                return True
        return any(self._has_type(leaves) for leaves in branches)

    def _branches(self, node: Node, seen: frozenset[str]) -> list[list[dict[str, Any]]]:
        """The node as alternatives, each a list of schemas whose own keywords hold together."""
        if isinstance(node, bool):
            return [[]] if node else []
        branches: list[list[dict[str, Any]]] = [[node]]
        parts: list[list[list[dict[str, Any]]]] = []
        if "$ref" in node:
            name = node["$ref"].removeprefix("#/$defs/")
            parts.append([] if name in seen else self._branches(self._definitions[name], seen | {name}))
        parts.extend(self._branches(part, seen) for part in node.get("allOf", ()))
        for key in ("anyOf", "oneOf"):
            if key in node:
                parts.append([branch for part in node[key] for branch in self._branches(part, seen)])
        if "enum" in node:
            parts.append([[self._constant(value)] for value in node["enum"]])
        if "const" in node:
            parts.append([[self._constant(node["const"])]])
        for part in parts:
            branches = [one + other for one in branches for other in part]
            if len(branches) > 4 * _MAX_BRANCHES:
                return branches
        return branches

    def _constant(self, value: Any) -> dict[str, Any]:
        """A value of const or enum as a schema; scalars keep a private keyword."""
        identity = id(value)
        if identity in self._constants:
            found = self._constants[identity]
        elif isinstance(value, dict):
            parts: dict[str, Node] = {name: self._constant(part) for name, part in value.items()}
            found = {"type": "object", "properties": parts, "required": list(value), "additionalProperties": False}
        elif isinstance(value, list):
            items: list[Node] = [self._constant(part) for part in value]
            found = {"type": "array", "prefixItems": items, "minItems": len(value), "maxItems": len(value)}
        else:
            found = {"type": _type_of(value), "is": value}
        self._kept.append([value])  # type: ignore[arg-type]
        self._constants[identity] = found
        assert isinstance(found, dict)
        return found

    def _has_type(self, leaves: Sequence[dict[str, Any]]) -> bool:
        types, is_whole = set(_ALL_TYPES), False
        for leaf in leaves:
            if "type" in leaf:
                named = set([leaf["type"]] if isinstance(leaf["type"], str) else leaf["type"])
                is_whole |= "integer" in named and "number" not in named
                types &= {"number" if name == "integer" else name for name in named}
        return any(self._has_value_of(name, leaves, is_whole=is_whole) for name in sorted(types))

    def _has_value_of(self, name: str, leaves: Sequence[dict[str, Any]], *, is_whole: bool) -> bool:
        if name in ("null", "boolean"):
            values = [leaf["is"] for leaf in leaves if "is" in leaf]
            return all(value is values[0] for value in values)
        if name == "number":
            return _has_number(leaves, is_whole=is_whole)
        if name == "string":
            return self._has_text(leaves)
        return self._has_array(leaves) if name == "array" else self._has_object(leaves)

    def _has_text(self, leaves: Sequence[dict[str, Any]]) -> bool:
        asked = [_string_keywords(leaf) for leaf in leaves]
        asked = [keywords for keywords in asked if keywords]
        if not any("pattern" in keywords or "format" in keywords or "const" in keywords for keywords in asked):
            least = max((keywords.get("minLength", 0) for keywords in asked), default=0)
            return all(least <= keywords.get("maxLength", least) for keywords in asked)
        return self._string(asked) is not False

    def _string(self, keywords: list[dict[str, Any]]) -> bool | None:
        schema = {"type": "string", "allOf": keywords}
        text = repr(schema)
        if text not in self._strings:
            self._strings[text] = self._has_string(schema)
        return self._strings[text]

    def _has_array(self, leaves: Sequence[dict[str, Any]]) -> bool:
        least = max((leaf.get("minItems", 0) for leaf in leaves), default=0)
        if any(leaf.get("maxItems", least) < least for leaf in leaves):
            return False
        num_prefixed = max((len(leaf.get("prefixItems", ())) for leaf in leaves), default=0)
        return all(
            self._all(_item(leaf, index) for leaf in leaves)
            for index in range(min(least, num_prefixed + 1))  # further items are like the last of these
        )

    def _has_object(self, leaves: Sequence[dict[str, Any]]) -> bool:
        required = {name: None for leaf in leaves for name in leaf.get("required", ())}
        if any(leaf.get("maxProperties", len(required)) < len(required) for leaf in leaves):
            return False
        if not all(self._has_property(leaves, name) for name in required):
            return False
        least = max((leaf.get("minProperties", 0) for leaf in leaves), default=0)
        if least <= len(required):
            return True
        if not any(leaf.get("additionalProperties") is False and not leaf.get("patternProperties") for leaf in leaves):
            return True
        names = {name: None for leaf in leaves for name in leaf.get("properties", ())} | required
        return sum(self._has_property(leaves, name) for name in names) >= least

    def _has_property(self, leaves: Sequence[dict[str, Any]], name: str) -> bool:
        parts: list[Node] = []
        for leaf in leaves:
            own = [leaf["properties"][name]] if name in leaf.get("properties", ()) else []
            for pattern, part in leaf.get("patternProperties", {}).items():
                matches = self._string([{"const": name}, {"pattern": pattern}])
                if matches is None:
                    return True
                if matches:
                    own.append(part)
            parts += own or [leaf.get("additionalProperties", True)]
        return self._all(parts)


def _item(leaf: dict[str, Any], index: int) -> Node:
    prefix = leaf.get("prefixItems", ())
    found: Node = prefix[index] if index < len(prefix) else leaf.get("items", True)
    return found


def _string_keywords(leaf: dict[str, Any]) -> dict[str, Any]:
    keywords = {key: leaf[key] for key in ("minLength", "maxLength", "pattern", "format") if key in leaf}
    return keywords | ({"const": leaf["is"]} if "is" in leaf else {})


def _has_number(leaves: Sequence[dict[str, Any]], *, is_whole: bool) -> bool:
    """True if a number lies within all bounds and is a multiple of everything that is asked for."""
    step = Fraction(1) if is_whole else None
    low: tuple[Fraction, bool] | None = None  # the bound, and whether it is excluded
    high: tuple[Fraction, bool] | None = None
    for leaf in leaves:
        for key in ("minimum", "exclusiveMinimum", "is"):
            if key in leaf:
                bound = (Fraction(str(leaf[key])), key == "exclusiveMinimum")
                low = bound if low is None else max(low, bound)
        for key in ("maximum", "exclusiveMaximum", "is"):
            if key in leaf:
                value = Fraction(str(leaf[key]))
                bound = (value, key == "exclusiveMaximum")
                high = bound if high is None or (value, not bound[1]) < (high[0], not high[1]) else high
        if "multipleOf" in leaf:
            one = Fraction(str(leaf["multipleOf"]))
            step = one if step is None else _common_multiple(step, one)
    if low is None or high is None:
        return True
    if step is None:
        return low[0] < high[0] or (low[0] == high[0] and not low[1] and not high[1])
    first = math.floor(low[0] / step) + 1 if low[1] else math.ceil(low[0] / step)
    last = math.ceil(high[0] / step) - 1 if high[1] else math.floor(high[0] / step)
    return first <= last


def _common_multiple(one: Fraction, other: Fraction) -> Fraction:
    numerator = math.lcm(one.numerator * other.denominator, other.numerator * one.denominator)
    return Fraction(numerator, one.denominator * other.denominator)


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def loose_strings(schema: dict[str, Any]) -> bool | None:
    """Answers for strings whatever patterns and formats mean: readers of patterns differ, and formats bind few."""
    asked = schema["allOf"]
    texts = {keywords["const"] for keywords in asked if "const" in keywords}
    lengths = {len(text) for text in texts}
    least = max([*lengths, *(keywords.get("minLength", 0) for keywords in asked)])
    most = min([least, *lengths, *(keywords.get("maxLength", least) for keywords in asked)])
    return None if len(texts) <= 1 and least <= most else False


def pruned(schema: PlainSchema, inhabitants: Inhabitants) -> PlainSchema:
    """Returns the schema with `false` in place of each part that no finite value meets.

    A grammar of it leads into no part that never ends. oneOf becomes anyOf: it is refused if a value may meet two of
    its options. Raises RequestError.
    """
    pruning = _Pruning(inhabitants, Inhabitants(schema, has_string=loose_strings), schema.definitions)
    nodes = (schema.root, *schema.definitions.values())
    for node in nodes:
        pruning.ask(node)
    root = pruning.prune(schema.root)
    definitions = {name: pruning.prune(node) for name, node in schema.definitions.items()}
    return PlainSchema(root, definitions, schema.options)


class _Pruning:
    def __init__(self, inhabitants: Inhabitants, loosely: Inhabitants, definitions: dict[str, Node]) -> None:
        self._inhabitants = inhabitants
        self._loosely = loosely
        self._definitions = definitions
        self._contexts: dict[int, Node] = {}

    def ask(self, node: Node) -> None:
        if isinstance(node, bool):
            return
        self._inhabitants.ask(node)
        for pair in self._pairs(node):
            self._loosely.ask(*pair)
        for part in parts(node):
            self.ask(part)

    def prune(self, node: Node) -> Node:
        if isinstance(node, bool):
            return node
        if not self._inhabitants.has_value(node):
            return False
        if any(self._loosely.has_value(*pair) for pair in self._pairs(node)):
            raise RequestError(
                "structured_outputs: json: a value may meet two options of a oneOf, and llguidance cannot exclude it. "
                "Use anyOf, or give each option a required property with a const of its own."
            )
        found = dict(node)
        for key in ("items", "additionalProperties"):
            if key in node:
                found[key] = self.prune(node[key])
        for key in ("allOf", "prefixItems"):
            if key in node:
                found[key] = [self.prune(part) for part in node[key]]
        for key in ("properties", "patternProperties"):
            if key in node:
                found[key] = {name: self.prune(part) for name, part in node[key].items()}
        for key in ("anyOf", "oneOf"):
            if key in node:
                found[key] = [part for part in map(self.prune, node[key]) if part is not False]
        if "oneOf" in node and "anyOf" in node:
            return found | {"allOf": [*found.get("allOf", ()), {"anyOf": found.pop("oneOf")}]}
        return {("anyOf" if key == "oneOf" else key): value for key, value in found.items()}

    def _pairs(self, node: dict[str, Any]) -> Iterator[tuple[Node, Node, Node]]:
        """Each two options of a oneOf, with the keywords beside it."""
        options = node.get("oneOf", ())
        if len(options) < 2:
            return
        tags = [self._tags(option) for option in options]
        beside = self._contexts.setdefault(id(node), {key: value for key, value in node.items() if key != "oneOf"})
        for i, one in enumerate(options):
            for j, other in enumerate(options[:i]):
                if not any(tags[i][name] != tags[j][name] for name in tags[i].keys() & tags[j].keys()):
                    yield beside, one, other

    def _tags(self, option: Node) -> dict[str, str]:
        """Properties that every value of an option has, with the one text of each: they tell most options apart."""
        for _ in range(_MAX_BRANCHES):
            if not isinstance(option, dict) or set(option) != {"$ref"}:
                break
            option = self._definitions[option["$ref"].removeprefix("#/$defs/")]
        if not isinstance(option, dict) or option.get("type") != "object":
            return {}
        listed = option.get("properties", {})
        found = {}
        for name in option.get("required", ()):
            part = listed.get(name)
            texts = part.get("enum", [part["const"]] if "const" in part else []) if isinstance(part, dict) else []
            if len(texts) == 1 and isinstance(texts[0], str):
                found[name] = texts[0]
        return found
