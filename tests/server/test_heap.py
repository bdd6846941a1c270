"""The front's memory after large bodies: what is freed goes back to the system."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path
from outrider.server.heap import return_large_buffers

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "set" and not return_large_buffers():
    print("none")
    sys.exit()
b"x" * (4 << 20)  # freed at once: glibc takes buffers up to this size from its heap from now on
before = resident()
large, small = [], []
for _ in range(32):
    large.append(b"x" * (2 << 20))
    small += [bytes(3000) for _ in range(50)]
del large
print((resident() - before) >> 20)
"""


def mebibytes_kept(asked: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, asked], capture_output=True, text=True, check=True)
    if done.stdout.strip() == "none":
        pytest.skip("this C library has no mallopt")
    return int(done.stdout)


def test_large_buffers_between_small_ones_are_returned() -> None:
    assert mebibytes_kept("set") < 8
    assert mebibytes_kept("not set") > 32, "this C library returns them by itself: the setting can be deleted"
