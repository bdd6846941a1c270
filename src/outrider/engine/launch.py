"""Starts the interpreter of an engine process, and ends it with its parent.

The new interpreter imports nothing of the caller's program: a script needs no `if __name__ == "__main__"`, and it does
not matter whether the caller has used a GPU. It finds the modules that the caller finds (drafters of other packages),
and none in the working directory that the caller would not: a downloaded model's directory may hold a `json.py`.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time

_PROGRAM = """
import json, sys
path = json.loads(sys.argv[2])
sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
from outrider.engine.process import main
main(int(sys.argv[1]))
"""

_PARENT_SECONDS = 1.0
"""Seconds between two looks at the parent."""


def start_interpreter(end: socket.socket) -> subprocess.Popen[bytes]:
    """Start the engine's process, which inherits its end of the socket; the caller closes its own copy of it."""
    path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
    command = [sys.executable, "-P", "-c", _PROGRAM, str(end.fileno()), path]
    return subprocess.Popen(command, pass_fds=[end.fileno()], stdin=subprocess.DEVNULL)


def exit_with_parent() -> None:
    """Exit soon after the parent process, however that ended.

    Its end of the socket closes then, but a process that it forked may hold a copy of it.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
