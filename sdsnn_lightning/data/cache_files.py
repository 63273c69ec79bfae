"""Where the caches of a set lie, and how their arrays are opened."""

import os
from pathlib import Path

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
