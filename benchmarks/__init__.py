"""Benchmarks, run from a checkout of the repository: `python -m benchmarks.NAME`.

`outrider_recipe`, which some of them use, is in the repository and need not be installed.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "zoo" / "recipe"))
