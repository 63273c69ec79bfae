"""CIFAR10-DVS, every folder of event recordings in its manner, and the simulated stand-in."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from math import inf
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor

from sdsnn_lightning.data.aedat import SENSOR
from sdsnn_lightning.data.base import DataModule, Source
from sdsnn_lightning.data.event_augment import EventAugment
from sdsnn_lightning.data.event_cache import EventFrames, EventSamples, build_event_frames, event_cache_file
from sdsnn_lightning.data.event_frames import Resize
from sdsnn_lightning.data.event_recordings import ClassFrom, Recording, find_recordings, ordered_split, random_split
from sdsnn_lightning.data.event_windows import FrameRule
from sdsnn_lightning.data.mixup import mix_batch
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.types import Batch, View

Rows = NDArray[np.int64]
TRAIN_SHARE = 0.9  # of the recordings of every class, where no pattern says which


def regroup(frames: Tensor, steps: int) -> Tensor:
    """Adds neighbouring time steps up.

    Args:
        frames: Counts `[B, T, ...]`.
        steps: Steps to make, a divisor of T.

    Returns:
        `[B, steps, ...]`.
    """
    length = frames.shape[1]
    return frames if length == steps else frames.unflatten(1, (steps, length // steps)).sum(2)


class CIFAR10DVS(DataModule):
    """Event recordings of objects, one class each: CIFAR10-DVS, and every set of recordings in folders.

    CIFAR10-DVS (Li et al., Frontiers in Neuroscience 2017): 10,000 recordings of a DVS128 in front of a monitor, 1,000
    of each class, `<class>/cifar10_<class>_<number>.aedat`. See `event_recordings` for other formats and layouts.

    A sample is a whole recording, or a window of one. It is stored once, at the finest T in use, and regrouped on the
    device by adding neighbouring steps up, so that the student's and the teacher's view show the same events. Frames
    by count at 16 steps add up to those at 4 except for at most 12 events at a border, as `N // 16` is rounded down.

    Gives `events`, raw counts as in BKDSNN's code, float32 `[B, T, 2, size, size]`, channel 0 darker and 1 brighter;
    and, where asked for, `image` `[B, 1, 2, size, size]`, the mean of the student's frames, for teachers of images.

    Attributes:
        protocol: What picks the checkpoint: held-out `recordings`, the `tail` of the training recordings, or the
            `test` part; written into every result.
    """

    def __init__(
        self,
        root: str = "data/CIFAR10-DVS",
        source: Source = "auto",
        simulated_root: str = "data/cifar10-dvs-simulated",
        simulated_recordings: int = 40,
        steps: int = 4,
        teacher_steps: int | None = None,
        frames_by: Literal["count", "duration"] = "count",
        size: int = 48,
        resize: Resize = "nearest",
        transpose: bool = False,
        sort_events: bool = False,
        class_from: ClassFrom = "folder",
        classes: list[str] | None = None,
        split: Literal["first900", "stratified"] = "first900",
        split_seed: int = 0,
        val_fraction: float = 0.1,
        train_match: list[str] | None = None,
        test_match: list[str] | None = None,
        window_ms: float | None = None,
        window_events: int | None = None,
        image: bool = False,
        augment: EventAugment | None = None,
        mixup: float = 0.0,
        cache_dir: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        """Creates the module.

        Args:
            root: Folder of the real set.
            source: `real`, `simulated`, or `auto`: real if `root` exists.
            simulated_root: Folder of the simulated set of ten shapes; made when missing.
            simulated_recordings: Recordings of every class of the simulated set.
            steps: Frames T of the student's view. BKDSNN's student takes 4 (or 8).
            teacher_steps: Frames of the teacher's view, a multiple of `steps`; as the student's by default. BKDSNN's
                code takes 16.
            frames_by: Equal numbers of events a frame (`count`, as the published codes) or equal `duration`.
            size: Height and width of a frame: 128 as in BKDSNN's code, 48 as in most others, or any below 128.
            resize: `nearest` keeps every few columns and rows and drops the events between, as the published codes do;
                `sum` adds neighbouring pixels up.
            transpose: Swap rows and columns of the real set. The camera of CIFAR10-DVS lay on its side: true shows its
                images upright, as spikingjelly and so BKDSNN's code load them. The default shows what jAER does.
            sort_events: Sort events that are out of order instead of refusing the recording.
            class_from: Whether the class is the name of a recording's `folder` or its `file` name.
            classes: Classes to use, in index order; all by default.
            split: `first900`: of every class the first nine tenths of the file names train, the others test, as in
                BKDSNN's code; `stratified`: a random tenth of every class tests.
            split_seed: Chooses the random parts of the split.
            val_fraction: Share of the training recordings of every class cut off for validation, at random. Where a
                class has one recording only, the same share at the end of every recording, after a gap of one window.
                0 is BKDSNN's protocol: train on all of them and choose the epoch on the test part.
            train_match: Patterns of the files to train on (`session_2018-10-29/*`), instead of `split`.
            test_match: Patterns of the files to test on.
            window_ms: Cut recordings into windows of this duration, in milliseconds.
            window_events: Cut recordings into windows of this many events.
            image: Give the mean frame, too.
            augment: Moves frames in training, both views alike; off by default, as in BKDSNN's SEW-ResNet code.
            mixup: Blend every training sample and its label with another's, by a share from Beta(mixup, mixup); 0.5
                in codes on CIFAR10-DVS, off (0) by default.
            cache_dir: Folder of the stored frames; `.cache` in the set's folder by default.
            batch_size: Samples in a batch, per process.
            num_workers: Loader processes.

        Raises:
            ConfigError: If an argument is out of its range, or two do not go together.
            DataError: If the real set is asked for and missing or lacks a class.
        """
        super().__init__(batch_size, num_workers)
        for key, value, least in (
            ("steps", steps, 1),
            ("size", size, 1),
            ("simulated_recordings", simulated_recordings, 3),
        ):
            if value < least:
                raise ConfigError(f"data.init_args.{key} is {value}; set it to at least {least}")
        finest = steps if teacher_steps is None else teacher_steps
        if finest < steps or finest % steps:
            raise ConfigError(
                f"data.init_args.teacher_steps is {finest}, not a multiple of steps {steps}; both views come from one "
                f"sample: set it to {steps}, {2 * steps}, {4 * steps}, ..."
            )
        if size > SENSOR:
            raise ConfigError(f"data.init_args.size is {size}; the sensor has {SENSOR} pixels, set it to at most that")
        if not 0 <= val_fraction < 1:
            raise ConfigError(f"data.init_args.val_fraction is {val_fraction}; set it to at least 0 and below 1")
        if not 0 <= mixup < inf:
            raise ConfigError(f"data.init_args.mixup is {mixup}; set it to 0 (off) or a positive number")
        if (train_match is None) != (test_match is None):
            raise ConfigError("data.init_args: train_match and test_match go together; set both or none")
        if window_ms is not None and window_events is not None:
            raise ConfigError("data.init_args: window_ms and window_events are two ways to cut; set one of them")
        if (window_ms is not None and window_ms < 0.001) or (window_events is not None and window_events < 1):
            raise ConfigError("data.init_args: window_ms and window_events must be positive, at least 0.001 ms")
        self.find_source(root, source, simulated_root)
        self.steps, self.teacher_steps, self.size = steps, finest, size
        self.class_from, self.classes, self.image, self.augment = class_from, classes, image, augment
        self.split, self.split_seed, self.val_fraction = split, split_seed, val_fraction
        self.train_match, self.test_match, self.cache_dir = train_match, test_match, cache_dir
        self.simulated_recordings, self.mixup = simulated_recordings, mixup
        if self.data_source == "simulated":
            # What describes the layout of the real set does not describe the simulated one.
            self.class_from, self.classes, self.train_match, self.test_match = "folder", None, None, None
            window_ms = window_events = None
            transpose = False
        window_us = 0 if window_ms is None else max(1, round(window_ms * 1000))
        self.rule = FrameRule(finest, frames_by, size, resize, window_us, window_events or 0, transpose, sort_events)
        if self.data_source == "simulated":
            from sdsnn_lightning.simulate.shapes import CLASSES

            self.class_names = list(CLASSES)
        else:
            self.class_names = self._find()[0]
        self.input_shapes = {"events": (steps, 2, size, size)}
        if image:
            self.input_shapes["image"] = (1, 2, size, size)
        self.protocol = "recordings" if val_fraction else "test"

    @property
    def mixes(self) -> bool:
        """Whether training batches blend samples, so that their targets are probabilities."""
        return self.mixup > 0

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Builds the views on the device and, in training with `mixup`, blends samples."""
        made = super().on_after_batch_transfer(batch, dataloader_idx)
        if self.mixes and self.trainer is not None and self.trainer.training:
            return mix_batch(made, self.num_classes, self.mixup)
        return made

    @property
    def split_key(self) -> dict[str, Any]:
        """The arguments that decide which recordings are in which part."""
        if self.train_match is not None:
            return {"train_match": self.train_match, "val_fraction": self.val_fraction, "split_seed": self.split_seed}
        return {"split": self.split, "val_fraction": self.val_fraction, "split_seed": self.split_seed}

    def _find(self) -> tuple[list[str], list[Recording]]:
        """The classes and the recordings in use: of either part every class, where patterns tell them apart."""
        if self.train_match is None or self.test_match is None:
            return find_recordings(self.root, self.class_from, self.classes)
        names, train = find_recordings(self.root, self.class_from, self.classes, self.train_match)
        _, test = find_recordings(self.root, self.class_from, names, self.test_match)
        if both := set(train) & set(test):
            raise ConfigError(
                f"data.init_args: {min(both).file} matches train_match and test_match; a recording is either for "
                "training or for testing: make the patterns exclude each other"
            )
        return names, [*train, *test]

    def prepare_data(self) -> None:
        """Makes the simulated set if it is the one, and reads all recordings into the cache. One process."""
        if self.data_source == "simulated":
            from sdsnn_lightning.simulate.shapes import write_simulated_recordings

            write_simulated_recordings(self.root, recordings=self.simulated_recordings)
        build_event_frames(self.root, [r.file for r in self._find()[1]], self.rule, self.cache_dir)

    def setup(self, stage: str) -> None:
        """Splits the samples. Every process.

        Args:
            stage: Ignored: all parts are cheap.

        Raises:
            DataError: If a part is empty or the classes have changed.
        """
        names, recordings = self._find()
        if names != self.class_names:
            raise DataError(f"{self.root}: the classes are {names}, expected {self.class_names}; restore the set")
        files = [recording.file for recording in recordings]
        cache = EventFrames(event_cache_file(self.root, files, self.rule, self.cache_dir))
        target = np.array([names.index(recording.label) for recording in recordings])[cache.recording]
        for part, rows in zip(("train", "val", "test"), self._split(recordings, cache.recording), strict=True):
            if not len(rows):
                raise DataError(f"{self.root}: no sample is left for the {part} part; mend the split or the windows")
            setattr(self, f"{part}_set", EventSamples(cache, rows, target[rows]))

    def _split(self, recordings: Sequence[Recording], of_sample: Rows) -> tuple[Rows, Rows, Rows]:
        """Rows of the training, validation and test samples; those of a recording are all in one of train and test."""
        labels = [recording.label for recording in recordings]
        if min(labels.count(label) for label in set(labels)) < 2:
            alone = next(label for label in labels if labels.count(label) < 2)
            raise DataError(f"{self.root} has one recording of {alone}, which cannot be split; add some")
        if self.train_match is not None:
            chosen = [any(fnmatchcase(r.file, pattern) for pattern in self.train_match) for r in recordings]
            train = [i for i, used in enumerate(chosen) if used]
            test = [i for i, used in enumerate(chosen) if not used]
        elif self.split == "first900":
            train, test = ordered_split(labels, TRAIN_SHARE)
        else:
            train, test = random_split(labels, 1 - TRAIN_SHARE, self.split_seed)

        def rows(chosen: Sequence[int]) -> Rows:
            return np.flatnonzero(np.isin(of_sample, chosen))

        if self.val_fraction == 0:
            rank_zero_warn("val_fraction is 0: validation runs on the TEST part, as in BKDSNN's code.")
            return rows(train), rows(test), rows(test)
        training_labels = [labels[i] for i in train]
        if min(training_labels.count(label) for label in set(training_labels)) > 1:
            kept, held = random_split(training_labels, self.val_fraction, self.split_seed)
            return rows([train[i] for i in kept]), rows([train[i] for i in held]), rows(test)
        self.protocol = "tail"
        heads, tails = zip(*(self._cut_tail(rows([i]), recordings[i]) for i in train), strict=True)
        return np.concatenate(heads), np.concatenate(tails), rows(test)

    def _cut_tail(self, rows: Rows, recording: Recording) -> tuple[Rows, Rows]:
        """The windows of one recording before and in its tail, without the one between."""
        tail = max(1, round(self.val_fraction * len(rows)))
        if len(rows) < tail + 2:
            raise DataError(
                f"{self.root / recording.file} is the only training recording of {recording.label} and gives "
                f"{len(rows)} samples, too few to cut {tail} for validation off after a gap; add recordings, set "
                "data.init_args.window_ms lower, or val_fraction: 0"
            )
        return rows[: -tail - 1], rows[-tail:]

    def views(self, sample: dict[str, Tensor], training: bool) -> tuple[View, View]:
        """Augments the stored counts and adds them up to both time resolutions.

        Args:
            sample: `events` uint8 `[B, T, 2, size, size]` at the finest T.
            training: Whether to augment, where `augment` is set.

        Returns:
            `events` float32 `[B, T, 2, size, size]` and, where asked for, `image` `[B, 1, 2, size, size]`, each twice;
            the same dict where both resolutions are one.
        """
        stored = sample["events"]
        if training and self.augment is not None:
            stored = self.augment(stored)
        frames = stored.float()
        student: View = {"events": regroup(frames, self.steps)}
        if self.image:
            student["image"] = student["events"].mean(1, keepdim=True)
        if self.teacher_steps == self.steps:
            return student, student
        return student, {**student, "events": frames}
