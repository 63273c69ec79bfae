"""`sdsnn data to-events`: turns images by class, or a video, into recordings of a simulated event camera."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from zlib import crc32

from sdsnn_lightning.cores import usable_cores
from sdsnn_lightning.data_commands.image_sets import SUFFIXES, ImageClass, find_classes
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.progress import watched
from sdsnn_lightning.simulate.once import STAMP, read_stamp
from sdsnn_lightning.whole import whole_file, whole_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sdsnn_lightning.simulate.closed_loop import Job

EPILOG = """examples:
  recordings of the first images of every class, in the layout of CIFAR10-DVS within train/ and test/:
    sdsnn data to-events data/cifar10 data/cifar10_sim_dvs --limit 100 --test-limit 20
  a folder <class>/<image>, two rounds of the loop instead of six, half as sensitive, as arrays:
    sdsnn data to-events pictures recordings --loops 2 --threshold 0.5 --format npz
  a video, with its motion interpolated to 250 frames a second first:
    sdsnn data to-events eye.mp4 eye.npz --upsample-fps 250
"""
FORMATS = ("aedat", "npz")
GENERATOR = "sdsnn data to-events"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the words and options of `to-events`.

    Args:
        commands: The commands of `sdsnn data`.
    """
    events = commands.add_parser(
        "to-events",
        help="Images or a video to recordings of an event camera.",
        description="Show every image on the set-up of CIFAR10-DVS (a display on which it moves in a closed loop, a "
        "DVS128 before it), or play a video to the camera. A result on such recordings is one on simulated data.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    events.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="A folder of <class>/<image> or <class>.tar, either also within train/, val/ and test/; or a video.",
    )
    events.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="A new folder for [<split>/]<class>/<image>.aedat; of a video a file, or a folder for one.",
    )
    events.add_argument("--limit", type=int, metavar="N", help="Take the first N images of every class and split.")
    events.add_argument("--test-limit", type=int, metavar="N", help="The same for test/; as --limit by default.")
    events.add_argument("--format", choices=FORMATS, help="aedat is AER-DAT2.0 at 128x128; npz holds arrays t x y p.")
    events.add_argument("--loops", type=int, metavar="N", help="Rounds of an image's loop, 0.2 s each; 6 by default.")
    events.add_argument("--threshold", type=float, metavar="X", help="Log-intensity step of an event; 0.26, video 0.2.")
    events.add_argument("--upsample-fps", type=float, metavar="HZ", help="Interpolate a video to this rate; slow.")
    events.add_argument("--seed", type=int, default=0, help="Draws the sensors and their noise; 0 by default.")
    events.add_argument("--workers", type=int, default=usable_cores(), help="Processes; one a core by default.")
    events.add_argument("--overwrite", action="store_true", help="Replace recordings made by this command.")
    events.set_defaults(run=to_events)


def to_events(options: argparse.Namespace) -> None:
    """Runs `sdsnn data to-events`. What it writes appears when all is whole.

    Args:
        options: See `add_parser`.

    Raises:
        ConfigError: If an option is out of its range.
        DataError: If the source is missing or broken, or the output exists or cannot be written.
    """
    for key, least in (
        ("limit", 1),
        ("test_limit", 1),
        ("loops", 1),
        ("workers", 1),
        ("seed", 0),
        ("threshold", 0.01),
        ("upsample_fps", 1),
    ):
        value = getattr(options, key)
        if value is not None and not value >= least:
            raise ConfigError(f"--{key.replace('_', '-')} is {value}; give at least {least}")
    if not options.source.exists():
        raise DataError(f"{options.source} does not exist; give a folder of images by class, or a video")
    if options.source.suffix.lower() in (".tar", *SUFFIXES):
        raise DataError(
            f"{options.source} is part of a class; give the folder that holds <class>/<image> or <class>.tar"
        )
    if options.source.is_dir():
        _convert_images(options)
    else:
        from sdsnn_lightning.data_commands.video_events import convert_video

        convert_video(options)


def _convert_images(options: argparse.Namespace) -> None:
    """Records every image into a folder aside, then renames it."""
    if options.upsample_fps is not None:
        raise ConfigError("--upsample-fps is for a video; take it out")
    classes = find_classes(options.source, options.limit, options.test_limit)
    _check_free(options.out, options.overwrite)
    began = time.monotonic()
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(options.out, replace=True) as aside:
            counts = _record_all(classes, aside, options)
            _write_stamp(aside, classes, options)
    except OSError as error:
        raise DataError(f"{options.out} cannot be written ({error.strerror or error}); name another output") from error
    _report(options.out, classes, counts, time.monotonic() - began)


def _check_free(out: Path, overwrite: bool) -> None:
    """Refuses an output that exists, unless this command made it and may replace it."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if read_stamp(out).get("generator") != GENERATOR:
        raise DataError(f"{out} exists and was not made by this command; name another output")
    if not overwrite:
        raise DataError(f"{out} exists; name another output, or give --overwrite")


def _record_all(classes: Sequence[ImageClass], folder: Path, options: argparse.Namespace) -> dict[str, list[int]]:
    """Makes and writes every recording; returns numbers of events by split."""
    from dataclasses import replace

    from sdsnn_lightning.simulate.closed_loop import SENSOR, ClosedLoop, make_recordings

    setup = ClosedLoop(loops=options.loops) if options.loops else ClosedLoop()
    sensor = SENSOR
    if options.threshold is not None:
        sensor = replace(SENSOR, threshold_on=options.threshold, threshold_off=options.threshold)
    jobs = _jobs(classes, folder, options.format or "aedat", options.seed)
    counts: dict[str, list[int]] = {found.split: [] for found in classes}
    done = make_recordings(jobs, setup, sensor, options.workers)
    for job, events in watched(done, "Recording", sum(len(found.images) for found in classes)):
        write_events(job.path, events)
        split = job.path.relative_to(folder).parts[0] if "" not in counts else ""
        counts[split].append(len(events))
    return counts


def _jobs(classes: Sequence[ImageClass], folder: Path, suffix: str, seed: int) -> Iterator["Job"]:
    """Reads the images. What is drawn for one depends on its name, not on how many others are taken."""
    from sdsnn_lightning.simulate.closed_loop import Job

    taken: set[Path] = set()
    for found in classes:
        target = folder / found.split / found.name
        target.mkdir(parents=True)
        for image, content in found.read():
            path = target / f"{PurePosixPath(image).stem}.{suffix}"
            if path in taken:
                raise DataError(f"{found.path} has two images called {path.stem}; rename one")
            taken.add(path)
            key = crc32("/".join((found.split, found.name, path.stem)).encode())
            yield Job(content, f"{found.path / image}", path, (seed, key))


def write_events(path: Path, events: "NDArray[np.void]") -> None:
    """Writes events as AER-DAT2.0 or as arrays.

    Args:
        path: Ends in `.aedat` (128x128 only) or `.npz` (t in microseconds, x, y and p, 1 for ON).
        events: Of `event_camera.EVENT_DTYPE`.

    Raises:
        DataError: If it cannot be written.
    """
    if path.suffix == ".aedat":
        from sdsnn_lightning.data.aedat import write_aedat

        write_aedat(path, events, comments=[f"Simulated: {GENERATOR}"])
        return
    import numpy as np

    arrays: dict[str, Any] = {name: events[name] for name in ("t", "x", "y", "p")}
    try:
        with whole_file(path) as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error}); name another output") from error


def _write_stamp(folder: Path, classes: Sequence[ImageClass], options: argparse.Namespace) -> None:
    """Notes beside the recordings what they are."""
    keys = ("limit", "test_limit", "format", "loops", "threshold", "seed")
    facts = {
        "generator": GENERATOR,
        "version": 1,
        "source": options.source.resolve().name,
        "parameters": {key: getattr(options, key) for key in keys},
        "recordings": {f"{c.split}/{c.name}".lstrip("/"): len(c.images) for c in classes},
    }
    (folder / STAMP).write_text(json.dumps(facts, indent=1))


def _report(out: Path, classes: Sequence[ImageClass], counts: dict[str, list[int]], took: float) -> None:
    """Says what was written."""
    for split, events in counts.items():
        number = sum(found.split == split for found in classes)
        print(
            f"{out / split}: {len(events)} recordings, {number} classes, {sum(events) / len(events):.0f} events "
            f"({min(events)} to {max(events)}) a recording"
        )
    total = sum(len(events) for events in counts.values())
    print(f"{total} recordings in {took:.0f} s, {total / took:.1f} a second")
    if {len({found.name for found in classes if found.split == split}) for split in counts} == {1}:
        print("warning: there is one class only", file=sys.stderr)
