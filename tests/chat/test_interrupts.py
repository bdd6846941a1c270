"""Ctrl-C at a prompt, in an answer, between the two, and one that a prompt has missed."""

import os
import signal
import time

import pytest

from outrider.chat.interrupts import Interrupts


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_it_raises_at_a_prompt_only() -> None:
    interrupts, before = Interrupts(), signal.getsignal(signal.SIGINT)
    with interrupts.handled():
        press()
        with pytest.raises(KeyboardInterrupt), interrupts.at_prompt():
            press()
            time.sleep(5)
        press()
        with interrupts.answering() as is_pressed:
            assert not is_pressed()
            press()
            assert is_pressed()
            with pytest.raises(KeyboardInterrupt):
                press()
        press()
    assert signal.getsignal(signal.SIGINT) == before and signal.set_wakeup_fd(-1) == -1


def test_a_press_that_a_prompt_has_missed_is_sent_again() -> None:
    """The byte is what Python writes when the signal comes; its handler did not run."""
    interrupts = Interrupts()
    with interrupts.handled():
        descriptor = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(descriptor)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt), interrupts.at_prompt():
                os.write(descriptor, b"\x02")
                time.sleep(5)
            time.sleep(0.2)


def test_a_press_that_was_handled_is_not_sent_again() -> None:
    interrupts = Interrupts()
    with interrupts.handled():
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt), interrupts.at_prompt():
                press()
            with interrupts.at_prompt():
                time.sleep(0.3)
