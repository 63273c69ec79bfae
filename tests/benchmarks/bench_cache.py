"""Row 8: what the caches spare, and how long a training step waits for its batch.

Epoch 1 is `prepare_data` and `setup` on files alone, then every training batch; epoch 2 every training batch again,
from the cache. The files are written first: random clips in SEE's layout, at the size of the real ones, and random
recordings in CIFAR10-DVS's layout and format. They were just written, so the disk's own time is in neither epoch. The
share of waiting is that of loader and views in the time of a training step, without loader processes.
"""

import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from measure import Options, Row, compare, in_turns, main
from torch import nn
from twins import training_step

from sdsnn_lightning.classifier import network_inputs
from sdsnn_lightning.data import CIFAR10DVS, DataModule, SingleEye
from sdsnn_lightning.data.aedat import write_aedat
from sdsnn_lightning.data.see_layout import EMOTIONS, LIGHTINGS, ClipName, write_clip, write_index
from sdsnn_lightning.memory import keep_freed_memory
from sdsnn_lightning.networks import SEWDVS, SingleEyeStudent
from sdsnn_lightning.quiet import keep_quiet
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE

SIDE = 180  # pixels of a stored image, twice what the authors train on


def write_see(root: Path, clips: int, length: int) -> None:
    """Clips of smooth noise, which JPEG takes as long to decode as pictures of an eye."""
    rng, entries = np.random.default_rng(0), []
    for number in range(clips):
        emotion, light = EMOTIONS[number % len(EMOTIONS)], LIGHTINGS[number % len(LIGHTINGS)]
        name = ClipName(number, f"{number // 7:03d}", "man", 24, "Master", light, emotion, length, 0)
        coarse = rng.integers(0, 256, (2, length, SIDE // 6, SIDE // 6), np.uint8)
        frames, events = coarse.repeat(6, 2).repeat(6, 3)
        write_clip(root, name, frames, events)
        entries.append((name, "testing" if number >= clips - 7 else "training", (0, length)))
    write_index(root, list(EMOTIONS), entries)


def write_recordings(root: Path, each: int, events: int) -> None:
    """Recordings of ten classes, with as many events as those of CIFAR10-DVS."""
    rng = np.random.default_rng(0)
    for label in range(10):
        for number in range(each):
            table = np.empty(events, EVENT_DTYPE)
            table["t"] = np.cumsum(rng.integers(0, 12, events))
            table["x"], table["y"], table["p"] = (rng.integers(0, n, events) for n in (128, 128, 2))
            write_aedat(root / f"c{label}" / f"cifar10_c{label}_{number}.aedat", table)


def epochs(data: DataModule, cache: Path, options: Options) -> dict[str, list[float]]:
    """Milliseconds of epoch 1, without a cache, and of epoch 2."""

    def second() -> float:
        began = options.clock()
        for samples in data.train_dataloader():
            data.on_after_batch_transfer(samples, 0)
        return 1000 * (options.clock() - began)

    def first() -> float:
        shutil.rmtree(cache, ignore_errors=True)
        began = options.clock()
        data.prepare_data()
        data.setup("fit")
        return 1000 * (options.clock() - began) + second()

    first()  # compiles
    return in_turns({"epoch 1": first, "epoch 2, from the cache": second}, options)


def waiting(data: DataModule, network: nn.Module, options: Options, steps: int) -> Row:
    """The share of loading in training steps of a network, the median of all."""
    shares, times = [], []
    batches = iter(())
    for _ in range(steps):
        began = options.clock()
        samples = next(batches, None)
        if samples is None:
            batches = iter(data.train_dataloader())
            samples = next(batches)
        batch = data.on_after_batch_transfer(samples, 0)
        loaded = options.clock()
        training_step(network, network_inputs(network, batch.student), batch.target)()
        ended = options.clock()
        shares.append((loaded - began) / (ended - began))
        times.append((1000 * (loaded - began), 1000 * (ended - loaded)))
    load, step = (statistics.median(column) for column in zip(*times[1:], strict=True))
    what = f"share of waiting for the loader, {type(data).__name__} under {type(network).__name__}"
    shares = shares[1:]  # the first step compiles and allocates
    medians = {"loader and views": load, "training step": step}
    return Row(8, what, "<=", statistics.median(shares), min(shares), max(shares), "", medians)


def rows(options: Options) -> Iterator[Row]:
    """Two rows for the caches, two for the waiting."""
    keep_freed_memory()
    keep_quiet()
    torch.manual_seed(0)
    quick = options.quick
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips, length, each, events = (21, 10, 4, 2000) if quick else (70, 30, 4, 200_000)
        write_see(folder / "see", clips, length)
        write_recordings(folder / "dvs", each, events)
        places = {"cache_dir": str(folder / "cache"), "source": "real", "batch_size": 4 if quick else 16}
        eyes = SingleEye(root=str(folder / "see"), size=48 if quick else 90, steps=2 if quick else 4, **places)
        shapes = CIFAR10DVS(root=str(folder / "dvs"), val_fraction=0.25, **places)
        layouts: list[tuple[str, DataModule, nn.Module]] = [
            ("SEE layout", eyes, SingleEyeStudent(7, size=eyes.size)),
            ("aedat", shapes, SEWDVS(10, size=48)),
        ]
        for layout, data, network in layouts:
            times = epochs(data, folder / "cache", options)
            yield compare(8, f"epoch 2 from the cache against epoch 1, {layout}", times, "epoch 2, from the cache",
                          "epoch 1", ">= 20")  # fmt: skip
            yield waiting(data, network, options, 3 if quick else 8)


if __name__ == "__main__":
    main(rows, __doc__)
