"""References of a JSON schema: finds the subschema that a $ref means, by pointer, anchor or $id.

A reference is relative to its resource; a subschema with an $id begins a resource of its own. Nothing
is fetched: a reference to another document is refused.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from outrider.core.errors import RequestError

_NOT_SCHEMAS = ("const", "enum", "default", "examples")
"""Keywords whose values are data; an "$id" in them identifies nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """A subschema, and the base URI of the references in it."""

    schema: Any
    base: str

    def part(self, schema: Any) -> "Place":
        """A subschema of this one."""
        return Place(schema, base_of(schema, self.base) if isinstance(schema, dict) else self.base)


class References:
    """The identifiers in one document."""

    def __init__(self, document: Any) -> None:
        self.root = Place("", "").part(document)
        self._resources = {"": self.root}
        self._anchors: dict[tuple[str, str], Place] = {}
        self._index(document, "")

    def resolve(self, reference: str, base: str) -> Place:
        """The subschema that `reference` means in the resource `base`. Raises RequestError."""
        uri, fragment = urldefrag(_joined(base, reference))
        place = self._resources.get(uri)
        if place is None:
            raise RequestError(
                f"structured_outputs: $ref {reference!r} leads to another document, and none is fetched. "
                "Put its definitions into the schema, under $defs."
            )
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            anchored = self._anchors.get((uri, fragment))
            if anchored is None:
                raise RequestError(f"structured_outputs: $ref {reference!r} leads nowhere. Correct the reference.")
            return anchored
        for part in fragment.split("/")[1:]:
            place = _step(place, part.replace("~1", "/").replace("~0", "~"), reference)
        return place

    def _index(self, value: Any, base: str) -> None:
        if isinstance(value, list):
            for item in value:
                self._index(item, base)
        if not isinstance(value, dict):
            return
        base = base_of(value, base)
        if base not in self._resources:
            self._resources[base] = Place(value, base)
        for key in ("$id", "id"):
            own = value.get(key)
            if isinstance(own, str) and own.startswith("#"):  # an anchor in drafts 4 to 7
                self._anchors[base, own[1:]] = Place(value, base)
        for key in ("$anchor", "$dynamicAnchor"):
            if isinstance(value.get(key), str):
                self._anchors[base, value[key]] = Place(value, base)
        for key, item in value.items():
            if key not in _NOT_SCHEMAS:
                self._index(item, base)


def base_of(schema: dict[str, Any], base: str) -> str:
    """The base URI inside `schema`, a part of the resource `base`."""
    own = schema.get("$id")
    if not isinstance(own, str) and _is_draft_4(schema):
        own = schema.get("id")
    if not isinstance(own, str) or own.startswith("#"):
        return base
    return urldefrag(_joined(base, own)).url


def _is_draft_4(schema: dict[str, Any]) -> bool:
    return "draft-04" in str(schema.get("$schema", ""))


def _joined(base: str, reference: str) -> str:
    """Like urljoin, for every scheme: urn: and tag: have fragments, too."""
    if reference.startswith("#"):
        return base + reference
    return reference if urlsplit(reference).scheme else urljoin(base, reference)


def _step(place: Place, part: str, reference: str) -> Place:
    """One step of a JSON pointer."""
    schema = place.schema
    if isinstance(schema, dict) and part in schema:
        found = schema[part]
    elif isinstance(schema, list) and part.isdecimal() and int(part) < len(schema):
        found = schema[int(part)]
    else:
        raise RequestError(f"structured_outputs: $ref {reference!r} leads nowhere: there is no {part!r}. Correct it.")
    return place.part(found)
