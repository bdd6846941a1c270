"""Lets the threads of one operation sleep while they wait for each other, in processes that are this project's own.

By default they spin, and where another process wants a core they spin while it keeps the one that they wait for: steps
on a CPU took 10 times longer beside other processes that computed (2 cores).
"""

import os
from collections.abc import Mapping

_SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE"}
_CHOSEN_BY_HAND = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables with which the operator chooses."""


def sleeping(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for a process whose threads sleep, unless the operator chose otherwise in it."""
    is_chosen = any(name in environment for name in _CHOSEN_BY_HAND)
    return dict(environment) if is_chosen else {**environment, **_SLEEPING}


def sleep_in_this_process() -> None:
    """Set this process so; has an effect only before torch is imported."""
    os.environ.update(sleeping(os.environ))
