"""Ctrl-C in a conversation: at the prompt it discards what was typed, in an answer it ends the answer, and nowhere else
does it end the conversation.

Python runs the handler of a signal between two of its own instructions, and the prompt waits inside a library. A press
that comes just before that wait would do nothing until the next key. So a thread watches, and sends it again.
"""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_PATIENCE = 0.05
"""Seconds until a press counts as lost."""


class Interrupts:
    """The meaning of Ctrl-C at present. One for a conversation, used in the main thread."""

    def __init__(self) -> None:
        self._is_at_prompt = False
        self._is_answering = False
        self._is_pressed = False
        self._num_handled = 0

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle Ctrl-C until the end of the block: a press outside of a prompt or an answer does nothing."""
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        main = threading.get_ident()
        watching = threading.Thread(target=self._watch, args=(receiver, main), name="ctrl-c", daemon=True)
        with receiver, self._handler():
            before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
            watching.start()
            try:
                yield
            finally:
                signal.set_wakeup_fd(before)
                sender.close()
                watching.join()

    @contextmanager
    def at_prompt(self) -> Iterator[None]:
        """Ctrl-C raises KeyboardInterrupt."""
        self._is_at_prompt = True
        try:
            yield
        finally:
            self._is_at_prompt = False

    @contextmanager
    def answering(self) -> Iterator[Callable[[], bool]]:
        """The first Ctrl-C is only noted: a step of the engine must not be cut in two. The result says if there was
        one. A second one raises KeyboardInterrupt."""
        with self._handler():
            self._is_pressed, self._is_answering = False, True
            try:
                yield lambda: self._is_pressed
            finally:
                self._is_answering = False

    @contextmanager
    def _handler(self) -> Iterator[None]:
        before = signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._num_handled += 1
        if self._is_at_prompt or (self._is_answering and self._is_pressed):
            raise KeyboardInterrupt
        self._is_pressed = True

    def _watch(self, receiver: socket.socket, main: int) -> None:
        """Send presses again that the prompt has missed. Ends when the other end is closed."""
        num_seen = self._num_handled
        while receiver.recv(64):  # a byte for each signal, before its handler runs
            time.sleep(_PATIENCE)
            while self._is_at_prompt and self._num_handled == num_seen:
                signal.pthread_kill(main, signal.SIGINT)
                time.sleep(_PATIENCE)
            with suppress(BlockingIOError):  # the bytes of those that were sent again
                receiver.recv(4096, socket.MSG_DONTWAIT)
            num_seen = self._num_handled
