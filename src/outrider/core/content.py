"""Content that a request has beside its token ids: the pixels behind placeholder tokens, an adapter's weights.

KV depends on this content, so everything that requests share (blocks of the prefix cache, snapshots) is keyed by token
ids and content.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

KEY_BYTES = 32
"""Length of every key; a fixed length makes the hashed bytes unambiguous."""

_PLACE = struct.Struct(">qq")


def content_digest(kind: str, data: bytes) -> bytes:
    """Key of content, from its bytes; different kinds never share a key."""
    return sha256(sha256(kind.encode()).digest() + data).digest()


def salt(kind: str, text: str) -> "ContentKey":
    """A key of no content, which keeps requests with other salts of its kind from sharing anything."""
    return ContentKey(key=content_digest(f"salt: {kind}", text.encode(errors="surrogatepass")))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentKey:
    """Names one piece of content, and says which tokens' KV depends on it."""

    key: bytes
    """Made by `content_digest`. Equal keys mean equal content."""
    first_token: int = 0
    """Index of its first token in the request."""
    num_tokens: int | None = None
    """None: every token from the first on, the output included (an adapter)."""

    def __post_init__(self) -> None:
        assert len(self.key) == KEY_BYTES, f"a content key has {KEY_BYTES} bytes, and this one {len(self.key)}"
        assert self.first_token >= 0, f"content begins at token {self.first_token}"
        assert self.num_tokens is None or self.num_tokens > 0, f"content of {self.num_tokens} tokens"

    def touches(self, start: int, end: int) -> bool:
        """True if the KV of any token in start … end - 1 depends on it."""
        if self.num_tokens is None:
            return self.first_token < end
        return self.first_token < end and self.first_token + self.num_tokens > start


def content_of_block(contents: Iterable[ContentKey], start: int, end: int) -> bytes:
    """The content of tokens start … end - 1 as bytes for a hash: keys, and where each begins relative to `start`.

    b"" without content. Independent of the order of `contents`.
    """
    return b"".join(
        sorted(
            _PLACE.pack(content.first_token - start, content.num_tokens or 0) + content.key
            for content in contents
            if content.touches(start, end)
        )
    )
