"""Memory of the process: freed blocks stay in it, and what imports made is not searched for garbage."""

import atexit
import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


@contextmanager
def without_collection() -> Iterator[None]:
    """Imports within are not interrupted by the garbage collector, which passes over what they made from then on.

    Modules stay until the end; looking through their hundreds of thousands of objects again and again, and once more
    at exit, finds nothing. Measured: 4.2 s instead of 5 s for Lightning's command line, and 1.5 s less at exit. Works
    once in a process: later on, there may be garbage that must not be kept.
    """
    if gc.get_freeze_count() or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(_thaw)
        gc.enable()


def _thaw() -> None:
    """Triton counts what is not collected at the very end, and complains at length."""
    if "triton" in sys.modules:
        gc.unfreeze()


def keep_freed_memory() -> None:
    """Tells glibc neither to map large blocks one by one nor to give freed ones back.

    Training asks for the same large blocks every step, and by default each is a fresh mapping whose pages the kernel
    zeroes on first touch. Measured on one core: a training step of the single-eye student takes 0.57 s instead of
    0.84 s, with a quarter of the page faults and 8 % more peak memory. Without effect on results, on GPU tensors, and
    where the C library is another.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has no mallopt
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
