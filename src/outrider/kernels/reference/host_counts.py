"""Reads how many tokens each row of a step has: on a CPU the host can read every tensor."""

from outrider.kernels.interface.cache import DeviceCounts


def host_counts(row_counts: tuple[int, ...] | DeviceCounts) -> tuple[int, ...]:
    """The counts as numbers. Waits for the device if it is not a CPU."""
    if isinstance(row_counts, DeviceCounts):
        return tuple(row_counts.counts.tolist())
    return row_counts
