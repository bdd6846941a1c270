"""Time until an engine is ready: workload A's shape, random weights, with an empty and with a full compiler cache.

Each figure is measured in a new process, from its start: interpreter and imports, then `LLM(...)`: weights drawn on the
device, kernels compiled, memory measured, graphs captured.

    PYTHONPATH=src python3 -m benchmarks.ready
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import decode
from benchmarks.timing import Table, save

PROGRAM = """
import sys, time
from pathlib import Path
from benchmarks import decode
imported = time.time()
llm = decode.make(Path(sys.argv[1]), sys.argv[2], 256)
print(imported, time.time(), llm.engine.worker.num_graphs)
"""


def main() -> None:
    table = Table("Ready", ["drafter", "compiler cache", "imports s", "LLM(...) s", "in all s", "graphs"])
    with tempfile.TemporaryDirectory() as name:
        decode.write_configs(Path(name))
        for drafter in ("none", "eagle3"):
            environment = {**os.environ, "TRITON_CACHE_DIR": str(Path(name) / f"cache-{drafter}")}
            for state in ("empty", "full"):
                start = time.time()
                done = subprocess.run(
                    [sys.executable, "-c", PROGRAM, name, drafter], env=environment, capture_output=True, text=True
                )
                assert done.returncode == 0, done.stderr
                imported, ready, graphs = map(float, done.stdout.split()[-3:])
                table.add(drafter, state, imported - start, ready - imported, ready - start, int(graphs))
    save("ready", "Time until ready", [table], (__doc__ or "").split("\n\n")[1], "python3 -m benchmarks.ready")


if __name__ == "__main__":
    main()
