"""`sdsnn data verify`: reads every file of a set and says what is damaged."""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sdsnn_lightning.cores import read_ahead
from sdsnn_lightning.data_commands.catalogue import SETS, find_set, how_to_get
from sdsnn_lightning.data_commands.sets import PARTS
from sdsnn_lightning.errors import DataError, UserError, one_line
from sdsnn_lightning.progress import watched

if TYPE_CHECKING:
    from sdsnn_lightning.data.spike_files import SpikeFile

MOST_LINES = 20
"""Damages that are printed; the rest are counted."""
_AT_ONCE = 64  # recordings of a spike file in one job
_WAITING = 256  # jobs that the threads may be ahead


class Job(NamedTuple):
    """A piece of work.

    Attributes:
        files: Number of files or recordings it reads.
        read: Reads them and returns what is damaged, one line each.
    """

    files: int
    read: Callable[[], list[str]]


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the words of `verify`.

    Args:
        commands: The commands of `sdsnn data`.
    """
    verify = commands.add_parser(
        "verify",
        help="Read every file of a set and say what is damaged.",
        description="Read every file of a set, real or simulated, and say what is damaged. Exit code 1 if anything is. "
        "Sets of one's own in a layout that a module reads are checked too, spikes under any data.init_args.prefix.",
        epilog="example: sdsnn data verify see data/see-simulated",
    )
    verify.add_argument("name", metavar="NAME", help=f"One of {', '.join(SETS)}.")
    verify.add_argument("root", metavar="ROOT", type=Path, help="Folder of the set.")
    verify.set_defaults(run=verify_set)


def verify_set(options: argparse.Namespace) -> None:
    """Runs `sdsnn data verify`.

    Args:
        options: See `add_parser`.

    Raises:
        ConfigError: If there is no such set.
        DataError: If its folder does not exist.
        SystemExit: With code 1, if something is damaged.
    """
    find_set(options.name)
    if not options.root.is_dir():
        raise DataError(f"{options.root} does not exist; {how_to_get(options.name, options.root)}")
    began = time.monotonic()
    number, damages = read_set(options.name, options.root)
    for line in damages[:MOST_LINES]:
        print(f"damaged: {line}")
    if len(damages) > MOST_LINES:
        print(f"damaged: {len(damages) - MOST_LINES} more")
    took = time.monotonic() - began
    print(f"{options.root}: {number} {_UNITS[options.name]} read in {took:.0f} s, {len(damages)} damaged")
    if damages:
        raise SystemExit(1)


def read_set(name: str, root: Path) -> tuple[int, list[str]]:
    """Reads every file of a set; shows a progress bar where a person is watching.

    Args:
        name: One of `catalogue.SETS`.
        root: Its folder.

    Returns:
        Number of files (of recordings, in files of spikes) that were read, and the damages, one line each.
    """
    try:
        jobs, damages = _JOBS[name](root)
    except DataError as error:  # the index or the layout: nothing else can be looked at
        return 0, [one_line(error)]
    for found in watched(read_ahead(lambda job: job.read(), jobs, _WAITING), f"Reading {name}", len(jobs)):
        damages += found
    return sum(job.files for job in jobs), damages


def _damage(read: Callable[..., object], *args: Any) -> list[str]:
    """What is wrong with one file."""
    try:
        read(*args)
    except UserError as error:  # too few classes, for one, which is for a run to change, or for who keeps the data
        return [one_line(error)]
    return []


def _see_jobs(root: Path) -> tuple[list[Job], list[str]]:
    """One job a clip and modality."""
    from sdsnn_lightning.data.see_layout import read_index

    jobs, damages = [], []
    for clip in read_index(root).clips:
        for folder in (clip.frames, clip.events):
            if folder is None:
                continue
            there = len(list(folder.glob("[0-9]*.jpg")))
            wanted = clip.length or clip.stop
            if clip.length is not None and there > wanted:
                damages.append(f"{folder} holds {there} images, its name or manifest says {wanted}; restore the clip")
            jobs.append(Job(wanted, partial(_broken_images, folder, wanted)))
    return jobs, damages


def _broken_images(folder: Path, count: int) -> list[str]:
    """What is wrong with the images of a clip; a folder that is not there is one line, not one an image."""
    from sdsnn_lightning.data.clip_cache import decode_images

    if not folder.is_dir():
        return [f"{folder} does not exist; restore the clip"]
    lines = []
    for i in range(count):
        path = folder / f"{i:05d}.jpg"
        there = path.is_file()
        lines += _damage(decode_images, folder, i, i + 1, 8) if there else [f"{path} is missing; restore the file"]
    return lines


def _spike_jobs(name: str, root: Path) -> tuple[list[Job], list[str]]:
    """Some recordings a job, of every file."""
    from sdsnn_lightning.data.spike_files import SpikeFile

    jobs: list[Job] = []
    damages: list[str] = []
    for path in _spike_paths(name, root):
        spikes = SpikeFile(path)
        wrong = _damage(lambda: (len(spikes), spikes.labels, spikes.speakers))  # noqa: B023  # called at once
        damages += wrong
        for first in range(0, 0 if wrong else len(spikes), _AT_ONCE):
            rows = range(first, min(first + _AT_ONCE, len(spikes)))
            jobs.append(Job(len(rows), partial(_broken_recordings, spikes, rows)))
    return jobs, damages


def _spike_paths(name: str, root: Path) -> list[Path]:
    """The files that should be there, of every prefix that one file is there of; the set's own where there is none."""
    ends = [f"_{part}.h5" for part in ("train", "valid", "test")]
    found = {path.name.removesuffix(end) for end in ends for path in root.glob(f"[!.]*{end}")}
    paths = [root / f"{prefix}_{part}.h5" for prefix in sorted(found or {name}) for part in PARTS[name]]
    return paths + [path for path in sorted(root.glob("[!.]*_valid.h5")) if path not in paths]


def _broken_recordings(spikes: "SpikeFile", rows: range) -> list[str]:
    """What is wrong with some recordings of a file."""
    return [line for row in rows for line in _damage(spikes.__getitem__, row)]


def _speech_jobs(root: Path) -> tuple[list[Job], list[str]]:
    """One job a recording, the background noise too; what the lists name and is not there is one damage."""
    from sdsnn_lightning.data.audio import decode
    from sdsnn_lightning.data.speech_words import BACKGROUND, all_words, list_words, split_files

    words = list_words(root)
    if not words:
        raise DataError(f"{root} holds no word folder; put <word>/<speaker>_nohash_<take>.wav there")
    paths = [
        path
        for folder in (*words, BACKGROUND)
        if (root / folder).is_dir()
        for path in sorted((root / folder).iterdir())
        if path.suffix in (".wav", ".flac")
    ]
    damages = _damage(all_words, root) or _damage(split_files, root, words)
    return [Job(1, partial(_damage, decode, path)) for path in paths], damages


def _event_jobs(root: Path) -> tuple[list[Job], list[str]]:
    """One job a recording."""
    from sdsnn_lightning.data.event_recordings import find_recordings, list_files, read_recording

    paths = list_files(root)
    flat = any(path.parent == root for path in paths)
    damages = _damage(find_recordings, root, "file" if flat else "folder")
    return [Job(1, partial(_damage, read_recording, path)) for path in paths], damages


_JOBS: dict[str, Callable[[Path], tuple[list[Job], list[str]]]] = {
    "see": _see_jobs,
    "shd": partial(_spike_jobs, "shd"),
    "ssc": partial(_spike_jobs, "ssc"),
    "speech-commands": _speech_jobs,
    "cifar10-dvs": _event_jobs,
}
_UNITS = {"see": "images", "shd": "recordings", "ssc": "recordings"} | dict.fromkeys(
    ("speech-commands", "cifar10-dvs"), "files"
)
