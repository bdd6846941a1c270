"""Long texts are read beside the event loop, which serves every other caller meanwhile."""

import asyncio
import threading

from outrider.server.chat import _LONG, _beside


def test_a_long_text_is_read_in_another_thread() -> None:
    assert asyncio.run(_beside("x" * (_LONG + 1), threading.get_ident)) != threading.get_ident()
    assert asyncio.run(_beside("x" * _LONG, threading.get_ident)) == threading.get_ident()
