"""All spike trains of one HDF5 file, read and checked once into one memory-mapped file.

Reading lists of variable length through HDF5 costs more than a training step of a small network. The cache holds the
same numbers one after the other: a batch then reads slices of a map. Its name holds a hash of the file it was made
from, so that an old cache is never taken for a new one, and a cache that exists says that the file was checked.
"""

import hashlib
import json
from math import ceil
from pathlib import Path

import numpy as np
from filelock import FileLock

from sdsnn_lightning.data.cache_files import cache_parent
from sdsnn_lightning.data.spike_files import AT_ONCE, SpikeFile
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.progress import watched
from sdsnn_lightning.whole import sweep_leftovers, whole_file

VERSION = 1  # count up when the same file would be cached as other numbers, or other files would be refused


class SpikeCache:
    """A finished cache, opened for reading.

    Attributes:
        path: The cache.
        class_names: The words in index order.
        labels: Word of every recording, int64 `[recordings]`.
        speakers: Speaker of every recording, int64 `[recordings]`; -1 where the file does not say.
        offsets: Where the spikes of every recording begin, and where the last ones end, int64 `[recordings + 1]`.
        events: All spikes, fields `time` (seconds, float16 or float32 as in the file) and `unit` (int16);
            memory-mapped, read-only.
    """

    def __init__(self, path: Path) -> None:
        """Opens a cache.

        Args:
            path: What `build_spikes` returned.

        Raises:
            DataError: If there is none, or it is damaged.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                names, self.labels, self.speakers, counts = (np.load(file, allow_pickle=False) for _ in range(4))
                dtype = np.load(file, allow_pickle=False).dtype
                start = file.tell()
            self.class_names = [str(name) for name in names]
            self.offsets = np.concatenate([[0], np.cumsum(counts)])
            self.events = np.memmap(path, dtype, "r", start, (int(self.offsets[-1]),))
            if not len(self.labels) == len(self.speakers) == len(counts) or counts.min() < 0:
                raise ValueError("labels, speakers and counts disagree")
            if start + self.events.nbytes != path.stat().st_size:
                raise ValueError("its length is not that of its spikes")
        except FileNotFoundError:
            raise DataError(f"{path} does not exist; call prepare_data() before setup(), which builds it") from None
        except Exception as error:  # NumPy raises many kinds on a broken header
            raise DataError(f"{path} is damaged ({error}); delete the file, it is built again") from error

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self.labels)

    def spikes(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Seconds `[N]` (float16 or float32) and channels `[N]` (int16) of one recording, as copies."""
        events = self.events[self.offsets[index] : self.offsets[index + 1]]
        return events["time"].copy(), events["unit"].copy()

    def __reduce__(self) -> tuple[type["SpikeCache"], tuple[Path]]:
        """Loader processes open the cache again instead of receiving a copy of it."""
        return SpikeCache, (self.path,)


def spike_cache_file(path: Path, cache_dir: str | Path | None = None) -> Path:
    """Names the cache of a spike file; equal on every process, and cheap: reads its name, size and time only.

    Args:
        path: The `.h5` file.
        cache_dir: See `cache_parent`.

    Returns:
        The cache, which may not exist yet.

    Raises:
        DataError: If the spike file does not exist.
    """
    try:
        stat = path.stat()
    except OSError:
        raise DataError(f"{path} does not exist; put the file there") from None
    key = json.dumps([VERSION, path.name, stat.st_size, stat.st_mtime_ns])
    return cache_parent(path.parent, cache_dir) / f"{path.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.spikes"


def build_spikes(path: Path, cache_dir: str | Path | None = None) -> Path:
    """Reads and checks a spike file into its cache, unless that of this very file exists. One process does.

    Args:
        path: The `.h5` file, in the layout of SHD.
        cache_dir: See `cache_parent`.

    Returns:
        The cache, for `SpikeCache`.

    Raises:
        DataError: If the file is missing or broken, or the cache cannot be written. Nothing is left of it then.
    """
    cache = spike_cache_file(path, cache_dir)
    if cache.exists():
        return cache
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(cache.with_name(f".{cache.name}.lock")):
            if not cache.exists():  # another process may have built it while this one waited
                sweep_leftovers(cache)
                _write(cache, SpikeFile(path))
    except OSError as error:
        raise DataError(
            f"{cache}: cannot write the cache of about {path.stat().st_size / 1e6:.0f} MB "
            f"({error.strerror or error}); free space there or set data.init_args.cache_dir to another folder"
        ) from error
    return cache


def _write(cache: Path, spikes: SpikeFile) -> None:
    """Writes columns, counts and spikes one after the other; the counts are known, and filled in, at the end."""
    dtype = np.dtype([("time", spikes.times_dtype), ("unit", "<i2")])
    counts = np.zeros(len(spikes), np.int64)
    with whole_file(cache) as partial:
        for column in (np.array(spikes.class_names), spikes.labels, spikes.speakers):
            np.save(partial, column, allow_pickle=False)
        place = partial.tell()
        np.save(partial, counts)
        np.save(partial, np.zeros(0, dtype))
        first = 0
        for chunk in watched(spikes.chunks(), f"Reading {spikes.path.name}, once", ceil(len(spikes) / AT_ONCE)):
            events = np.empty(len(chunk.times), dtype)
            events["time"], events["unit"] = chunk.times, chunk.units
            partial.write(events.tobytes())
            counts[first : first + len(chunk.counts)] = chunk.counts
            first += len(chunk.counts)
        partial.seek(place)
        np.save(partial, counts)
