"""A server with default options for the tests of this folder; it runs as long as the tests of one process."""

from collections.abc import Iterator

import pytest

from tests.support.server_under_test import ServerUnderTest, serve


@pytest.fixture(scope="session")
def server() -> Iterator[ServerUnderTest]:
    """Serves the zoo's target with its drafter. A file whose tests need other options has its own fixture `server`."""
    with serve() as started:
        yield started
