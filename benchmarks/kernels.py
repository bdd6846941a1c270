"""All tables of kernel speed, into benchmarks/results/: `PYTHONPATH=src python3 -m benchmarks.kernels [name ...]`."""

import importlib
import sys

from benchmarks.timing import progress

NAMES = ("gemm", "attention", "experts", "sampling", "small_kernels", "state_kernels", "stack")


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        if name not in NAMES:
            raise SystemExit(f"there is no benchmark {name!r}. Known: {', '.join(NAMES)}.")
        progress(f"benchmark {name}")
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
