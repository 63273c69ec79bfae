"""All recordings of a set as small frames of event counts, in one memory-mapped file.

Reading a recording of CIFAR10-DVS takes as long as a training step of a small network. The cache holds every sample,
a whole recording or a window of one, as uint8 counts `[T, 2, S, S]` at the finest T in use. Its name holds a hash of
the files it was made from and of how; it appears when it is whole, so one that exists says that every file was checked.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from sdsnn_lightning.cores import read_ahead
from sdsnn_lightning.data.cache_files import cache_parent
from sdsnn_lightning.data.event_windows import FrameRule, cut_recording
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.progress import watched
from sdsnn_lightning.whole import sweep_leftovers, whole_file

VERSION = 1  # count up when the same files would be cached as other numbers
_AT_ONCE = 32  # recordings whose frames may wait to be written


class EventFrames:
    """A finished cache, opened for reading.

    Attributes:
        path: The cache.
        frames: Counts, uint8 `[samples, T, 2, S, S]`, memory-mapped, read-only. Samples of a recording follow each
            other in time, recordings in the order they were given.
        recording: Number of the recording of every sample, int64 `[samples]`.
    """

    def __init__(self, path: Path) -> None:
        """Opens a cache.

        Args:
            path: What `build_event_frames` returned.

        Raises:
            DataError: If there is none, or it is damaged.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                file.seek(-8, 2)
                end = int.from_bytes(file.read(8), "little")
                file.seek(end)
                shape, samples = (np.load(file, allow_pickle=False) for _ in range(2))
            self.recording = np.repeat(np.arange(len(samples)), samples)
            whole = (len(self.recording), *(int(n) for n in shape))
            if int(np.prod(whole)) != end:
                raise ValueError(f"{end} bytes are no {whole}")
            self.frames = np.memmap(path, np.uint8, "r", 0, whole)
        except FileNotFoundError:
            raise DataError(f"{path} does not exist; call prepare_data() before setup(), which builds it") from None
        except Exception as error:  # NumPy raises many kinds on a broken header
            raise DataError(f"{path} is damaged ({error}); delete the file, it is built again") from error

    def __reduce__(self) -> tuple[type["EventFrames"], tuple[Path]]:
        """Loader processes open the cache again instead of receiving a copy of it."""
        return EventFrames, (self.path,)


def event_cache_file(root: Path, files: Sequence[str], rule: FrameRule, cache_dir: str | Path | None = None) -> Path:
    """Names the cache of a set; equal on every process, and cheap: reads names, sizes and times only.

    Args:
        root: Folder of the set.
        files: Recordings below `root`, in order.
        rule: How they are cut.
        cache_dir: See `cache_parent`.

    Returns:
        The cache, which may not exist yet.

    Raises:
        DataError: If a recording is missing.
    """
    digest = hashlib.sha256(json.dumps([VERSION, *rule]).encode())
    for file in files:
        try:
            stat = (root / file).stat()
        except OSError:
            raise DataError(f"{root / file} is missing; restore the recording") from None
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    parent = cache_parent(root, cache_dir)
    return parent / f"events-{rule.steps}x{rule.size}-{digest.hexdigest()[:16]}.frames"


def build_event_frames(root: Path, files: Sequence[str], rule: FrameRule, cache_dir: str | Path | None = None) -> Path:
    """Builds the cache of a set, unless that of these very files exists. One of several processes builds.

    Args:
        root: Folder of the set.
        files: Recordings below `root`, in order.
        rule: How they are cut.
        cache_dir: See `cache_parent`.

    Returns:
        The cache, for `EventFrames`.

    Raises:
        DataError: If a recording is missing or broken, or the cache cannot be written. Nothing is left of it then.

    Warns:
        Once, when it builds: if counts were clipped at 255.
    """
    path = event_cache_file(root, files, rule, cache_dir)
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if not path.exists():  # another process may have built it while this one waited
                sweep_leftovers(path)
                _write(path, root, files, rule)
    except OSError as error:
        raise DataError(
            f"{path}: cannot write the cache of {len(files)} or more samples of "
            f"{rule.steps * 2 * rule.size**2 / 1e6:.2f} MB ({error.strerror or error}); "
            "free space there or set data.init_args.cache_dir to another folder"
        ) from error
    return path


def _write(path: Path, root: Path, files: Sequence[str], rule: FrameRule) -> None:
    """Writes frames, then their shape and the number of samples of every recording, then where these begin."""
    samples = np.zeros(len(files), np.int64)
    skipped = clipped = 0
    with whole_file(path) as partial:
        # Reading and counting let go of the interpreter.
        cuts = read_ahead(lambda file: cut_recording(root / file, rule), files, _AT_ONCE)
        for number, cut in enumerate(watched(cuts, "Reading recordings, once", len(files))):
            partial.write(cut.frames.data)
            samples[number] = len(cut.frames)
            skipped, clipped = skipped + cut.skipped, clipped + cut.clipped
        end = partial.tell()
        np.save(partial, np.array([rule.steps, 2, rule.size, rule.size]))
        np.save(partial, samples)
        partial.write(end.to_bytes(8, "little"))
    if skipped:
        rank_zero_info(f"{root}: {skipped} windows hold fewer events than frames and were left out")
    if clipped:
        rank_zero_warn(f"{root}: {clipped} counts above 255 were cut to 255; raise size, steps or shorten windows")


class EventSamples(Dataset):
    """Some samples of a cache with their class: `events` uint8 `[T, 2, S, S]`, and `target`."""

    def __init__(self, cache: EventFrames, rows: NDArray[np.int64], targets: NDArray[np.int64]) -> None:
        """Creates the data set.

        Args:
            cache: All samples.
            rows: Samples of this part.
            targets: Class index of each of them.
        """
        self.cache, self.rows, self.targets = cache, rows, targets

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        """One sample."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor | int]]:
        """Fetches a batch with one gather; torch's loader calls this where it exists.

        Args:
            indices: Positions in this data set.

        Returns:
            One sample each.
        """
        events = torch.from_numpy(np.take(self.cache.frames, self.rows[indices], axis=0))
        return [{"events": e, "target": int(t)} for e, t in zip(events, self.targets[indices], strict=True)]
