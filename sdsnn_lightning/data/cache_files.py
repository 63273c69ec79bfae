"""Files that are either whole or not there: where caches lie, and how a file is written aside and then renamed."""

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np


def cache_parent(root: Path, cache_dir: str | Path | None = None) -> Path:
    """Folder of the caches of a set.

    Args:
        root: Folder of the set.
        cache_dir: Folder of all caches, where one is wanted.

    Returns:
        `cache_dir`; by default `.cache` in the set's folder, or, where that cannot be written,
        `~/.cache/sdsnn_lightning`.
    """
    if cache_dir is not None:
        return Path(cache_dir)
    return root / ".cache" if os.access(root, os.W_OK) else Path.home() / ".cache" / "sdsnn_lightning"


def sweep_leftovers(path: Path) -> None:
    """Deletes what killed processes left of a file they were writing with `whole_file`.

    Args:
        path: The file. The caller holds its lock, so nobody else is writing it.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.partial-*"):
        leftover.unlink(missing_ok=True)


def map_array(path: Path) -> np.ndarray:
    """Maps an array that a cache keeps in a `.npy` file of its own.

    Args:
        path: The file.

    Returns:
        The array, memory-mapped, read-only.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the file is damaged, as far as it can be known: it is not exactly as long as its header says.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        exact = isinstance(array, np.memmap) and array.offset + array.nbytes == path.stat().st_size
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy raises many kinds on a broken header
        raise ValueError(str(error).strip().partition("\n")[0] or type(error).__name__) from error
    if not exact:
        raise ValueError("its length is not what its header says")
    return array


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file aside that takes the name `path` when the block ends well, and vanishes when it does not.

    Plain writes: on a full disk a write raises, where a writable memory map kills the process.

    Args:
        path: The file to be. Its folder exists.

    Yields:
        The file aside, open for reading and writing bytes.

    Raises:
        OSError: If it cannot be written.
    """
    number, name = tempfile.mkstemp(prefix=f".{path.name}.partial-", dir=path.parent)
    try:
        with os.fdopen(number, "w+b") as partial:
            yield partial
            partial.flush()
            os.fsync(partial.fileno())
        os.chmod(name, 0o644)  # others who may read the set may read this
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
