"""Content as bytes for a hash: it says all that KV depends on, in one way only."""

import itertools

import pytest

from outrider.core.content import ContentKey, content_digest, content_of_block

IMAGE, OTHER = content_digest("image", b"pixels"), content_digest("image", b"other pixels")


def test_kinds_and_bytes_make_the_key() -> None:
    keys = {content_digest(*entry) for entry in (("image", b"a"), ("adapter", b"a"), ("image", b"b"), ("imagea", b""))}
    assert len(keys) == 4
    assert content_digest("image", b"pixels") == IMAGE


@pytest.mark.parametrize(("start", "end"), list(itertools.combinations(range(12), 2)))
def test_content_touches_the_blocks_that_its_tokens_lie_in(start: int, end: int) -> None:
    image = ContentKey(key=IMAGE, first_token=3, num_tokens=4)
    assert image.touches(start, end) == bool(set(range(3, 7)) & set(range(start, end)))
    assert ContentKey(key=IMAGE, first_token=3).touches(start, end) == (end > 3)


def test_every_difference_shows_and_the_order_does_not() -> None:
    places = [(IMAGE, 0, 4), (IMAGE, 1, 4), (IMAGE, 0, 5), (IMAGE, 0, None), (OTHER, 0, 4), (IMAGE, 9, 4)]
    contents = [ContentKey(key=key, first_token=first, num_tokens=count) for key, first, count in places]
    found = {}
    for size in range(3):
        for chosen in itertools.combinations(contents, size):
            name = content_of_block(chosen, 0, 8)
            assert name == content_of_block(chosen[::-1], 0, 8)
            seen = frozenset(entry for entry in chosen if entry.first_token < 8)
            assert found.setdefault(name, seen) == seen, "one name for two contents"
    assert content_of_block([], 0, 8) == content_of_block(contents[5:], 0, 8) == b""


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(AssertionError, match="a content key has 32 bytes, and this one 3"):
        ContentKey(key=b"abc")
