"""Starts the interpreter of an engine process, and ends it with its parent.

The new interpreter imports nothing of the caller's program: a script needs no `if __name__ == "__main__"`, and it does
not matter whether the caller has used a GPU. It finds the modules that the caller finds (drafters of other packages),
and none in the working directory that the caller would not: a downloaded model's directory may hold a `json.py`.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from outrider.core.waiting_threads import sleeping

_PROGRAM = """
import json, sys
path = json.loads(sys.argv[2])
sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
from outrider.engine.launch import exit_with_parent
exit_with_parent(int(sys.argv[3]), is_its_main_thread=bool(int(sys.argv[4])))
from outrider.engine.process import main
main(int(sys.argv[1]))
"""

_PR_SET_PDEATHSIG = 1
"""Number of Linux' prctl option: the signal that the kernel sends when the parent ends."""
_PARENT_SECONDS = 1.0
"""Seconds between two looks at the parent."""


def start_interpreter(end: socket.socket) -> subprocess.Popen[bytes]:
    """Start the engine's process, which inherits its end of the socket; the caller closes its own copy of it."""
    path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
    is_main_thread = threading.current_thread() is threading.main_thread()
    caller = [str(os.getpid()), str(int(is_main_thread))]
    command = [sys.executable, "-P", "-c", _PROGRAM, str(end.fileno()), path, *caller]
    return subprocess.Popen(command, pass_fds=[end.fileno()], stdin=subprocess.DEVNULL, env=sleeping(os.environ))


def exit_with_parent(parent: int, *, is_its_main_thread: bool) -> None:
    """Exit soon after the process `parent`, however that ended. Its end of the socket closes then, but a process that
    it forked may hold a copy of it.

    A thread watches. It cannot while a library keeps Python's lock, as some do when they load, so Linux is asked for a
    signal as well; it sends that when the *thread* that started this process ends, which must be `is_its_main_thread`.
    """
    if is_its_main_thread and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
