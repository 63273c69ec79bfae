"""All images of a clip set, decoded once into memory-mapped arrays.

Decoding thousands of small JPGs costs far more than a training step of a small spiking network, so every image in use
is decoded and resized once, to uint8 `[images, size, size]` a modality, and mapped from then on. A build happens in a
folder aside that takes its name only when whole, so a killed build or a full disk never leaves a cache that looks good.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from PIL import Image

from sdsnn_lightning.cores import read_ahead
from sdsnn_lightning.data.cache_files import cache_parent, map_array
from sdsnn_lightning.data.manifest import Clip
from sdsnn_lightning.data.see_layout import Index
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.progress import QUIET_SECONDS, watched
from sdsnn_lightning.whole import sweep_leftovers, whole_folder

VERSION = 1  # count up when the same files would be decoded to other numbers
_CLIPS_AT_ONCE = 64  # bounds the memory of decoded clips that wait to be written


class ClipCache:
    """A finished cache, opened for reading.

    Attributes:
        images: Decoded images by modality, uint8 `[images, size, size]`, memory-mapped.
        offsets: First image of every clip in the index's order, int64 `[clips]`.
        counts: Number of images of every clip, int64 `[clips]`.
    """

    def __init__(self, folder: Path) -> None:
        """Opens a cache.

        Args:
            folder: What `build_cache` returned.

        Raises:
            DataError: If there is no whole cache in the folder.
        """
        self.folder = folder
        facts = _facts(folder)
        if facts is None:
            raise DataError(f"{folder} holds no whole cache; call prepare_data() before setup(), which builds it")
        try:
            self.counts = np.array(facts["counts"], dtype=np.int64)
            self.images = {name: map_array(folder / f"{name}.npy") for name in facts["modalities"]}
            shape = (int(self.counts.sum()), facts["size"], facts["size"])
            if wrong := [name for name, images in self.images.items() if images.shape != shape]:
                raise ValueError(f"{wrong[0]}.npy does not hold {shape} images")
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise DataError(f"{folder} is damaged ({error}); delete the folder, it is built again") from error
        self.offsets = np.cumsum(self.counts) - self.counts

    def __reduce__(self) -> tuple[type["ClipCache"], tuple[Path]]:
        """Loader processes open the files again instead of receiving a copy of all images."""
        return ClipCache, (self.folder,)


def cache_folder(index: Index, size: int, modalities: Sequence[str], cache_dir: str | Path | None = None) -> Path:
    """Names the cache of a set; equal on every process, and cheap: looks at no image.

    Args:
        index: The set.
        size: Height and width of the decoded images, in pixels.
        modalities: `frames`, `events`, or both.
        cache_dir: See `cache_parent`.

    Returns:
        The folder, which may not exist yet.
    """
    root = index.path.parent.resolve()
    parent = cache_parent(root, cache_dir)
    beside = cache_dir is None and parent.parent == root
    home = "" if beside else str(root)  # a set that is moved with its cache keeps it
    clips = [(*(os.path.relpath(_folder(c, m), index.path.parent) for m in modalities), c[-3:]) for c in index.clips]
    key = hashlib.sha256(json.dumps([VERSION, size, list(modalities), home, clips]).encode()).hexdigest()[:16]
    return parent / f"clips-{size}-{key}"


def build_cache(index: Index, size: int, modalities: Sequence[str], cache_dir: str | Path | None = None) -> Path:
    """Builds the cache of a set, unless a whole one of these very files exists. One of several processes builds.

    Args:
        index: The set.
        size: Height and width of the decoded images, in pixels. Resized with Pillow's bilinear filter, as the authors'
            code does; square whatever the files are.
        modalities: `frames`, `events`, or both.
        cache_dir: See `cache_folder`.

    Returns:
        The cache's folder.

    Raises:
        DataError: If an image is missing or broken, the number of images is not as stated, or the cache cannot be
            written. No part of a cache is left then.
    """
    folder = cache_folder(index, size, modalities, cache_dir)
    files = _check_files(index, modalities)
    if _is_current(folder, files):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            if not _is_current(folder, files):  # another process may have built it while this one waited
                _build(index, folder, size, modalities, files)
    except OSError as error:
        images = sum(clip.stop - clip.start for clip in index.clips) * len(modalities)
        raise DataError(
            f"{folder}: cannot write the cache of {images * size * size / 1e6:.0f} MB ({error.strerror or error}); "
            "free space there or set data.init_args.cache_dir to another folder"
        ) from error
    return folder


def decode_images(folder: Path, start: int, stop: int, size: int) -> np.ndarray:
    """Decodes images `start` to `stop` (exclusive) of a clip's folder, grey and resized.

    Args:
        folder: Holds `00000.jpg`, `00001.jpg`, ...
        start: First image.
        stop: End, exclusive.
        size: Height and width of the result.

    Returns:
        uint8 `[stop - start, size, size]`.

    Raises:
        DataError: If an image is missing, truncated or no image; the message names the file.
    """
    images = np.empty((stop - start, size, size), dtype=np.uint8)
    for i in range(start, stop):
        path = folder / f"{i:05d}.jpg"
        try:
            with Image.open(path) as image:
                # The files are grey, or RGB with three equal channels: one channel holds all there is.
                images[i - start] = np.asarray(image.convert("L").resize((size, size), Image.Resampling.BILINEAR))
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{path} cannot be decoded ({error}); restore the file") from error
    return images


def _folder(clip: Clip, modality: str) -> Path:
    """The folder of a clip's images of one modality."""
    folder = clip.frames if modality == "frames" else clip.events
    if folder is None:
        raise DataError(f"clip {clip.name} has no {modality} in the index; set data.init_args.modalities: [frames]")
    return folder


def _check_files(index: Index, modalities: Sequence[str]) -> str:
    """Checks that every clip has the images it should have; returns a hash of their names, sizes and times."""
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda clip: [_list_images(_folder(clip, m)) for m in modalities], index.clips))
    digest = hashlib.sha256()
    for clip, lists in zip(index.clips, found, strict=True):
        for modality, images in zip(modalities, lists, strict=True):
            folder = _folder(clip, modality)
            for i in range(max(clip.length or 0, clip.stop, len(images))):
                if i >= len(images) or images[i][0] != f"{i:05d}.jpg":
                    raise DataError(f"{folder / f'{i:05d}.jpg'} is missing; restore the file")
            if clip.length is not None and len(images) != clip.length:
                raise DataError(
                    f"{folder} holds {len(images)} images, its name or manifest says {clip.length}; restore the clip"
                )
            digest.update(repr(images).encode())
        if len({len(images) for images in lists}) > 1:
            sizes = " and ".join(f"{len(images)} {m}" for m, images in zip(modalities, lists, strict=True))
            raise DataError(f"clip {clip.name} has {sizes}; both must be as many: restore the clip")
    return digest.hexdigest()


def _list_images(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size in bytes and modification time in ns of the images in a folder, by name."""
    try:
        with os.scandir(folder) as entries:
            files = [entry for entry in entries if entry.name.endswith(".jpg") and not entry.name.startswith(".")]
            return sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} does not exist; restore the clip, or set data.init_args.modalities to what the set has"
        ) from error
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); mend its rights or restore the clip") from error


def _facts(folder: Path) -> dict[str, Any] | None:
    """What a whole cache says about itself; None where there is none."""
    try:
        facts = json.loads((folder / "index.json").read_text())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def _is_current(folder: Path, files: str) -> bool:
    """Whether a whole cache of exactly these files exists."""
    facts = _facts(folder)
    return facts is not None and facts.get("files") == files


def _lock(folder: Path) -> AcquireReturnProxy:
    """Takes the lock of one cache, and says so if another process holds it; leaving the context gives it back."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        return lock.acquire(timeout=QUIET_SECONDS)
    except Timeout:
        rank_zero_info(f"Another process builds {folder}: waiting for it.")
        return lock.acquire()


def _build(index: Index, folder: Path, size: int, modalities: Sequence[str], files: str) -> None:
    """Builds aside, then renames. The caller holds the lock, so every other `.partial` of this cache is a leftover."""
    sweep_leftovers(folder)
    with whole_folder(folder, replace=True) as aside:  # a run that has older files mapped keeps its pages
        counts = [clip.stop - clip.start for clip in index.clips]
        for modality in modalities:
            # Plain writes, not a writable map: on a full disk a map kills the process, a write raises.
            with (aside / f"{modality}.npy").open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": (sum(counts), size, size)}
                np.lib.format.write_array_header_1_0(file, header)
                _decode_all(index, modality, size, file)
                _sync(file)
        with (aside / "index.json").open("wb") as file:
            facts = {"files": files, "modalities": list(modalities), "size": size, "counts": counts}
            file.write(json.dumps(facts).encode())
            _sync(file)


def _decode_all(index: Index, modality: str, size: int, file: BinaryIO) -> None:
    """Decodes one modality of every clip in threads (Pillow lets go of the interpreter) and writes it in order."""

    def decode(clip: Clip) -> np.ndarray:
        return decode_images(_folder(clip, modality), clip.start, clip.stop, size)

    decoded = read_ahead(decode, index.clips, _CLIPS_AT_ONCE)
    for images in watched(decoded, f"Decoding {modality}, once", len(index.clips)):
        file.write(images.tobytes())


def _sync(file: BinaryIO) -> None:
    """Puts a file on the disk, which also raises what a full disk has put off."""
    file.flush()
    os.fsync(file.fileno())
