"""Keeps freed memory in the process, if the C library lets us: training asks for the same large blocks every step."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Tells glibc neither to map large blocks one by one nor to give freed ones back.

    By default every large tensor on the CPU is a fresh mapping whose pages the kernel zeroes on first touch. Measured
    on one core: a training step of the single-eye student takes 0.57 s instead of 0.84 s, with a quarter of the page
    faults and 8 % more peak memory. Without effect on results, on GPU tensors, and where the C library is another.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has no mallopt
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
