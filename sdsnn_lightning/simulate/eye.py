"""A simulated set of single-eye emotion clips, in the layout of SEE.

It stands in for SEE (Zhang et al., SIGGRAPH 2023) where that set is absent, and everything that reads SEE reads it. A
result on it says how methods compare, not how well they know real faces.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdsnn_lightning.cores import usable_cores, worker_processes
from sdsnn_lightning.progress import watched
from sdsnn_lightning.simulate.eye_clip import Subject, simulate_clip
from sdsnn_lightning.simulate.eye_motion import STYLES
from sdsnn_lightning.simulate.once import Stamp, check_least, make_once

VERSION = 2
"""Raised whenever the pictures change, so that an old set is known as such."""
QUALITY = 80
"""JPEG quality: half the size of 95, and no event changes its polarity."""
MIN_LENGTH, MAX_LENGTH = 18, 24
"""Frames of a clip. SEE has 18 to 131; short clips keep the set small."""
Pictures = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Frames and event frames of one clip, each `[N, H, W]`."""


class _Task(NamedTuple):
    """One clip to simulate; all that a worker process needs."""

    subject: int
    emotion: str
    take: int
    size: int
    seed: int


def write_simulated_see(
    root: str | Path,
    *,
    subjects: int = 24,
    clips_per_class: int = 3,
    size: int = 90,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Writes a simulated set, or reuses the one that stands there with the same parameters.

    The last third of the subjects is for testing and nobody is in both parts. Every subject is seen in one lighting
    only, as in SEE. The set appears under `root` only when it is whole, and two processes do not write it twice. The
    same parameters give the same files, whatever the number of workers.

    Args:
        root: Folder of the set. A simulated set of other parameters or of another version in it is replaced.
        subjects: Number of subjects, 2 or more.
        clips_per_class: Clips of every emotion each subject shows.
        size: Height and width of the images in pixels.
        seed: Everything is drawn from it.
        workers: Processes; the number of usable cores where None.

    Returns:
        `root`.

    Raises:
        ConfigError: If a parameter is too small.
        DataError: If `root` holds files that this function did not write, which are left alone, or cannot be written.
    """
    parameters = {"subjects": subjects, "clips_per_class": clips_per_class, "size": size, "seed": seed}
    check_least("simulated eye set", parameters, subjects=2, clips_per_class=1, size=16, seed=0)
    stamp = Stamp("sdsnn_lightning.simulate.eye", VERSION, {**parameters})
    return make_once(Path(root), "clips", stamp, lambda folder: _write(folder, parameters, workers))


def _write(root: Path, parameters: dict[str, int], workers: int | None) -> None:
    """Simulates every clip, in several processes, and writes it and the index."""
    from sdsnn_lightning.data.see_layout import ClipName, write_clip, write_index

    people = {n: Subject.draw(n, parameters["seed"]) for n in range(1, parameters["subjects"] + 1)}
    tasks = [
        _Task(number, emotion, take, parameters["size"], parameters["seed"])
        for number in people
        for emotion in STYLES
        for take in range(parameters["clips_per_class"])
    ]
    first_test = len(people) - max(len(people) // 3, 1) + 1
    clips = []
    for number, (task, (frames, events)) in enumerate(zip(tasks, _simulated(tasks, workers), strict=True), start=1):
        person = people[task.subject]
        name = ClipName(
            number=number,
            subject=f"{task.subject:03d}",
            sex=person.sex,
            age=person.age,
            degree=person.degree,
            lighting=person.lighting,
            emotion=task.emotion,
            length=len(frames),
            take=task.take,
        )
        write_clip(root, name, frames, events, quality=QUALITY)
        clips.append((name, "testing" if task.subject >= first_test else "training", (0, len(frames))))
    write_index(root, list(STYLES), clips)


def _simulated(tasks: list[_Task], workers: int | None) -> Iterator[Pictures]:
    """Yields the pictures of every task in order."""
    workers = min(workers or usable_cores(), len(tasks))
    with ExitStack() as stack:
        results: Iterable[Pictures] = map(_simulate, tasks)
        if workers > 1:
            results = stack.enter_context(worker_processes(workers)).map(_simulate, tasks, chunksize=4)
        yield from watched(results, "Simulating eye clips", len(tasks))


def _simulate(task: _Task) -> Pictures:
    """Simulates one clip, from seeds that belong to it alone: who simulates it, and when, makes no difference."""
    seed = [task.seed, task.subject, list(STYLES).index(task.emotion), task.take]
    length = int(np.random.default_rng([*seed, 1]).integers(MIN_LENGTH, MAX_LENGTH + 1))
    return simulate_clip(Subject.draw(task.subject, task.seed), task.emotion, length, seed, task.size)
