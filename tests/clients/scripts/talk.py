"""Frame of a client script: reads the task, or texts, from stdin and writes what the client found to stdout, as JSON.

Imported by scripts that run in the clients' own environment: needs the standard library only.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """One conversation and the server to have it with; the test has had the same one over plain HTTP."""

    url: str
    """Base address, ending with /v1."""
    model: str
    question: str
    max_tokens: int
    tool: dict[str, Any]
    """Name, description and parameters of a function."""
    schema: dict[str, Any]
    """A JSON schema for a structured answer."""


def read_task() -> Task:
    """The task that the test wrote."""
    return Task(**json.load(sys.stdin))


@dataclass(frozen=True)
class Texts:
    """Texts for a server with a pooling model; the test has had the same numbers over plain HTTP."""

    url: str
    """Base address, without a path."""
    model: str
    query: str
    texts: list[str]
    dimensions: int


def read_texts() -> Texts:
    """The texts that the test wrote."""
    return Texts(**json.load(sys.stdin))


def tell(**found: Any) -> None:
    """Writes what the client found."""
    json.dump(found, sys.stdout)
