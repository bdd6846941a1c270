"""The order of overlapping kernels, for kernels in Gluon (programmatic dependent launch)."""

from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

__all__ = ["launch_dependents", "wait"]

launch_dependents = gdc_launch_dependents
"""Lets the next kernel start, if launched `OVERLAPPED`. It must `wait` before it reads what this one writes."""

wait = gdc_wait
"""Waits for all kernels before this one."""
