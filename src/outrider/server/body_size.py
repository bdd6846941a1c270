"""Counts what a JSON body holds before it is parsed, so that no body asks for more work than a prompt of its length.

Looks at bytes only, in a few passes that each take milliseconds. Knows no fields; what is not JSON is left to the
parser.
"""

from outrider.server.errors import APIError, refused

MAX_VALUES = (1 << 18) + (1 << 14)
"""Maximum number of values in a body: token ids of a prompt as long as a list may be, and everything else."""
MAX_CONTAINERS = 1 << 14
"""Maximum number of objects and lists in a body."""
MAX_TEXTS = 1 << 17
"""Maximum number of texts in a body, names of fields included."""
SMALL = 1 << 15
"""Bytes up to which a body is parsed at once, on the event loop."""


def check_counts(data: bytes) -> None:
    """Raises APIError 400 if the body holds too many values, whatever they are."""
    marks = data.count(b","), data.count(b"{") + data.count(b"["), data.count(b'"')
    if marks[0] < MAX_VALUES and marks[1] <= MAX_CONTAINERS and marks[2] <= 2 * MAX_TEXTS:
        return
    # marks inside texts count for nothing; a backslash is only valid inside one
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    num_texts = plain.count(b'"') // 2
    if num_texts > MAX_TEXTS:
        raise _refusal("texts", num_texts, MAX_TEXTS)
    outside = b"".join(plain.split(b'"')[::2])
    num_containers = outside.count(b"{") + outside.count(b"[")
    if num_containers > MAX_CONTAINERS:
        raise _refusal("objects and lists", num_containers, MAX_CONTAINERS)
    num_values = outside.count(b",") + 1
    if num_values > MAX_VALUES:
        raise _refusal("values", num_values, MAX_VALUES)


def _refusal(kind: str, count: int, most: int) -> APIError:
    return refused(f"the body holds {count} {kind}; at most {most} are taken. Send several smaller requests.")
