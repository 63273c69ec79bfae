"""How many processor cores there are to use."""

import os


def usable_cores() -> int:
    """Number of processor cores this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
