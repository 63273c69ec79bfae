"""All recordings of an audio set, decoded once into one memory-mapped array.

Opening a compressed file costs more than a training step of a small network, so every recording is decoded, resampled
and cut or padded to one length once, to int16 `[recordings, samples]`. The array is written aside and takes its name
only when whole; the name holds a hash of the files it was made from, so that an old cache is never taken for a new one.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from sdsnn_lightning.data.audio import decode_all
from sdsnn_lightning.data.cache_files import cache_parent, map_array
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.progress import watched
from sdsnn_lightning.whole import sweep_leftovers, whole_file

VERSION = 1  # count up when the same files would be decoded to other numbers


def cache_file(
    root: Path, files: Sequence[str], sample_rate: int, samples: int, cache_dir: str | Path | None = None
) -> Path:
    """Names the cache of a set; equal on every process, and cheap: reads names, sizes and times only.

    Args:
        root: Folder of the set.
        files: Paths of the recordings below `root`, in the order of the array's rows.
        sample_rate: Rate in Hz.
        samples: Samples of every recording.
        cache_dir: See `cache_parent`.

    Returns:
        The `.npy` file, which may not exist yet.

    Raises:
        DataError: If a recording is missing.
    """
    parent = cache_parent(root, cache_dir)
    digest = hashlib.sha256(json.dumps([VERSION, sample_rate, samples]).encode())
    for file in files:
        try:
            stat = (root / file).stat()
        except OSError:
            raise DataError(f"{root / file} is missing; restore the file") from None
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return parent / f"waveforms-{sample_rate}-{digest.hexdigest()[:16]}.npy"


def build_waveforms(
    root: Path, files: Sequence[str], sample_rate: int, samples: int, cache_dir: str | Path | None = None
) -> Path:
    """Builds the cache of a set, unless that of these very files exists. One of several processes builds.

    Args:
        root: Folder of the set.
        files: Paths of the recordings below `root`, in the order of the array's rows.
        sample_rate: Rate in Hz.
        samples: Samples of every recording.
        cache_dir: See `cache_parent`.

    Returns:
        The `.npy` file, int16 `[recordings, samples]`.

    Raises:
        DataError: If a recording is missing or broken, or the cache cannot be written. Nothing is left of it then.

    Warns:
        Once, when it builds: how many recordings were converted from stereo or another rate.
    """
    path = cache_file(root, files, sample_rate, samples, cache_dir)
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if not path.exists():  # another process may have built it while this one waited
                sweep_leftovers(path)
                _write(path, root, files, sample_rate, samples)
    except OSError as error:
        raise DataError(
            f"{path}: cannot write the cache of {len(files) * samples * 2 / 1e6:.0f} MB ({error.strerror or error}); "
            "free space there or set data.init_args.cache_dir to another folder"
        ) from error
    return path


def open_waveforms(path: Path) -> np.ndarray:
    """Maps a cache into memory.

    Args:
        path: What `build_waveforms` returned.

    Returns:
        int16 `[recordings, samples]`, read-only.

    Raises:
        DataError: If there is none, or it is damaged.
    """
    try:
        return map_array(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; call prepare_data() before setup(), which builds it") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); delete the file, it is built again") from error


def _write(path: Path, root: Path, files: Sequence[str], sample_rate: int, samples: int) -> None:
    """Decodes all recordings into the array, and says once how many were stereo or of another rate."""
    with whole_file(path) as partial:
        header = {"descr": "<i2", "fortran_order": False, "shape": (len(files), samples)}
        np.lib.format.write_array_header_1_0(partial, header)
        other: list[str] = []  # what had to be converted
        shown = watched(files, "Decoding recordings, once", len(files))
        for sound in decode_all(root, shown, sample_rate, other, samples):
            partial.write(sound.tobytes())
    if other:
        rank_zero_warn(
            f"{root}: {len(other)} of {len(files)} recordings were converted to mono at {sample_rate} Hz, "
            f"the first of them {other[0]}"
        )


class Recordings(Dataset):
    """Rows of the waveform cache with their class."""

    def __init__(self, path: Path, rows: Sequence[int], targets: Sequence[int]) -> None:
        """Opens the data set.

        Args:
            path: The waveform cache.
            rows: Rows of the cache in this part.
            targets: Class index of each of these rows.
        """
        self.path, self.rows, self.targets = path, np.asarray(rows), np.asarray(targets)
        self.waveforms = open_waveforms(path)  # int16 [recordings, S]

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        """One recording: `audio` int16 `[S]`, and `target`."""
        return {
            "audio": torch.from_numpy(np.array(self.waveforms[self.rows[index]])),
            "target": int(self.targets[index]),
        }

    def __reduce__(self) -> tuple[type["Recordings"], tuple[Path, np.ndarray, np.ndarray]]:
        """Loader processes open the cache again instead of receiving a copy of it."""
        return Recordings, (self.path, self.rows, self.targets)
