"""Locks on folders, which end with the process that holds them and those it forked: nothing stays behind."""

import contextlib
import os
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None


def lock_folder(folder: Path) -> int:
    """Locks a folder without waiting.

    Args:
        folder: It exists.

    Returns:
        What `unlock_folder` takes.

    Raises:
        BlockingIOError: If another process has it.
        OSError: If it is no folder, or there are no locks on this system or in this file system.
    """
    if fcntl is None:
        raise OSError("folders have no locks on this system")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def unlock_folder(descriptor: int) -> None:
    """Ends a lock, also where a forked process has the folder open, too.

    Args:
        descriptor: What `lock_folder` returned.
    """
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough while another process has it open
    os.close(descriptor)
