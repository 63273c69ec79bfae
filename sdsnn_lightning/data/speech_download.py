"""Speech Commands from its official address: fetched, checked and unpacked whole or not at all."""

import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from filelock import FileLock

from sdsnn_lightning.data.speech_words import BACKGROUND, LISTS, WORDS_V1, WORDS_V2
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.whole import sweep_leftovers, whole_folder


class Archive(NamedTuple):
    """One published archive.

    Attributes:
        url: Official address.
        sha256: As published by TensorFlow Datasets and torchaudio.
        words: Its word folders.
    """

    url: str
    sha256: str
    words: tuple[str, ...]


_PLACE = "https://storage.googleapis.com/download.tensorflow.org/data/"
ARCHIVES: dict[int, Archive] = {
    1: Archive(
        _PLACE + "speech_commands_v0.01.tar.gz",
        "743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
        WORDS_V1,
    ),
    2: Archive(
        _PLACE + "speech_commands_v0.02.tar.gz",
        "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        WORDS_V2,
    ),
}
"""Version 1 holds 64,727 recordings in 1.5 GB, version 2 105,829 in 2.4 GB."""
_MOST_BYTES = 8 * 10**9  # version 2 unpacks to less than half of it


def download_speech_commands(root: str | Path, version: Literal[1, 2] = 2) -> Path:
    """Fetches and unpacks Speech Commands, unless its folder exists. One of several processes does it.

    The archive lies beside the folder while it is fetched, so that an interrupted download goes on, and is deleted
    once the folder stands.

    Args:
        root: Folder of the set; appears whole or not at all.
        version: 1 (30 words) or 2 (35 words).

    Returns:
        `root`.

    Raises:
        DataError: If the archive cannot be fetched, is not the published one, or cannot be unpacked.
    """
    from sdsnn_lightning.data.download import fetch_file

    root, archive = Path(root), ARCHIVES[version]
    file = root.parent / archive.url.rpartition("/")[2]
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.with_name(f".{root.name}.lock")):
            if not root.exists():  # another process may have made it while this one waited
                sweep_leftovers(root)
                fetch_file(archive.url, file, sha256=archive.sha256)
                unpack_tar(file, root, (*archive.words, BACKGROUND, *LISTS.values()))
                file.unlink()
    except OSError as error:
        raise DataError(
            f"{root}: cannot store Speech Commands ({error.strerror or error}); it needs 7 GB while it is unpacked: "
            "free space there or set data.init_args.root to another folder"
        ) from error
    return root


def unpack_tar(archive: Path, folder: Path, required: tuple[str, ...] = (), most_bytes: int = _MOST_BYTES) -> None:
    """Unpacks an archive aside, checks it, then gives it its name.

    Only plain files and folders within the archive's own tree are taken; a link, a device or a path that leads out of
    it is refused, as is an archive that unpacks to more than `most_bytes`.

    Args:
        archive: A tar file, compressed or not.
        folder: What to make of it; must not exist.
        required: Names that must stand at its top.
        most_bytes: Most that its files may hold in all.

    Raises:
        DataError: If the archive is damaged or not acceptable. Nothing is left of it then.
        OSError: If the disk is full.
    """
    try:
        with whole_folder(folder) as aside, tarfile.open(archive) as tar:
            total = 0
            for member in tar:
                total += member.size
                _check_member(archive, member, total, most_bytes)
                tar.extract(member, aside, filter="data")
            missing = sorted(name for name in required if not (aside / name).exists())
            if missing:
                raise DataError(f"{archive} holds no {missing[0]}; delete it, it is fetched again")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}); delete it, it is fetched again") from error


def _check_member(archive: Path, member: tarfile.TarInfo, total: int, most_bytes: int) -> None:
    """Refuses what a data set has no use for; the `data` filter of `tarfile` stands behind it."""
    path = PurePosixPath(member.name)
    if not (member.isreg() or member.isdir()) or path.is_absolute() or ".." in path.parts:
        raise DataError(f"{archive} holds {member.name!r}, no plain file below it; delete the archive")
    if total > most_bytes:
        raise DataError(f"{archive} unpacks to more than {most_bytes / 1e9:g} GB; delete the archive")
