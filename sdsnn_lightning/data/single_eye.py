"""Single-eye emotion recognition: SEE, sets in its layout, and the simulated stand-in."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from sdsnn_lightning.data.base import DataModule, Source
from sdsnn_lightning.data.clip_cache import ClipCache, build_cache, cache_folder
from sdsnn_lightning.data.clips import WindowDataset
from sdsnn_lightning.data.manifest import Clip
from sdsnn_lightning.data.see_layout import EMOTIONS, LIGHTINGS, SUBSETS, read_index
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.types import View

Modality = Literal["frames", "events"]

# Mean and standard deviation over SEE on the [0, 1] scale, as the authors' code has them.
FRAME_MEAN, FRAME_STD = 0.22616537, 0.118931554
EVENT_MEAN, EVENT_STD = 0.504413, 0.06928615

TEST_FRACTION = 0.32  # of the clips; the official split's share, 767 of 2,405


def normalise(images: Tensor, mean: float, std: float) -> Tensor:
    """Brings stored images to about zero mean and unit variance.

    Args:
        images: uint8, any shape.
        mean: Mean on the [0, 1] scale.
        std: Standard deviation on the [0, 1] scale.

    Returns:
        float32 `(images / 255 - mean) / std`, same shape; rounded after every operation, as the authors' code does.
    """
    return images.float().div_(255).sub_(mean).div_(std)


def ternary_events(images: Tensor) -> Tensor:
    """Reads polarities out of grey event images, by threshold, as JPEG blurs the exact values.

    Args:
        images: uint8 event images, any shape: 0 negative, about 127 no event, 255 positive.

    Returns:
        float32, same shape: -1 below 0.25 of full scale, +1 above 0.75, else 0.
    """
    return (images > 0.75 * 255).float() - (images < 0.25 * 255).float()


def split_subjects(clips: Sequence[Clip], chosen: Sequence[int], fraction: float, seed: int) -> tuple[list, list]:
    """Cuts clips in two parts that share no subject.

    Args:
        clips: All clips of the index.
        chosen: Positions of the clips to cut.
        fraction: Least share of the clips in the second part, in (0, 1).
        seed: Chooses the subjects; the same seed gives the same cut, on any machine.

    Returns:
        Positions of the first and of the second part, each in the given order.

    Raises:
        DataError: If there are fewer than two subjects.
    """
    subjects = sorted({clips[i].subject for i in chosen})
    if len(subjects) < 2:
        raise DataError(
            f"cannot split {len(chosen)} clips of {len(subjects)} subject by subject; "
            "set split: official and val_fraction: 0"
        )
    taken: set[str] = set()
    second: list[int] = []
    for k in torch.randperm(len(subjects), generator=torch.Generator().manual_seed(seed)).tolist():
        if len(second) >= fraction * len(chosen) or len(taken) == len(subjects) - 1:
            break
        taken.add(subjects[k])
        second = [i for i in chosen if clips[i].subject in taken]
    return [i for i in chosen if clips[i].subject not in taken], second


def eye_view(images: View, channels: int, event_values: Literal["grey", "ternary"]) -> View:
    """Turns stored images of an eye into what networks see, the same for clips and for a video.

    Args:
        images: `frames`, `events` or both, uint8 `[B, T, 1, size, size]`.
        channels: Equal copies of the one grey channel.
        event_values: `grey` normalises event images like frames, `ternary` tells their polarities apart.

    Returns:
        float32 `[B, T, channels, size, size]` by modality.
    """
    view: View = {}
    for name, stored in images.items():
        if name == "frames":
            seen = normalise(stored, FRAME_MEAN, FRAME_STD)
        elif event_values == "grey":
            seen = normalise(stored, EVENT_MEAN, EVENT_STD)
        else:
            seen = ternary_events(stored)
        view[name] = seen.expand(-1, -1, channels, -1, -1)
    return view


class SingleEye(DataModule):
    """Clips of one eye: intensity frames and accumulated events, seven emotions, four light conditions.

    SEE (Zhang et al., SIGGRAPH 2023): 2,405 clips of 111 volunteers, recorded with a DAVIS346 at 30 images/s. See
    `see_layout` for the files, `clips` for the time windows.

    Two splits: `official` is the authors', which shares subjects between training and testing; `subject` cuts all
    clips by subject. In both, validation is cut by subject from the training part.
    """

    def __init__(
        self,
        root: str = "data/SEE",
        source: Source = "auto",
        simulated_root: str = "data/see-simulated",
        simulated_subjects: int = 24,
        simulated_clips: int = 3,
        size: int = 90,
        steps: int = 4,
        skip: int = 3,
        channels: int = 3,
        modalities: tuple[Modality, ...] = ("frames", "events"),
        event_values: Literal["grey", "ternary"] = "grey",
        split: Literal["official", "subject"] = "official",
        val_fraction: float = 0.15,
        eval_starts: int = 4,
        official_offset: bool = False,
        cache_dir: str | None = None,
        seed: int = 0,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        """Creates the module.

        Args:
            root: Folder of the real set.
            source: `real`, `simulated`, or `auto`: real if `root` exists.
            simulated_root: Folder of the simulated set; made when missing, and anew when its numbers change.
            simulated_subjects: Subjects of the simulated set.
            simulated_clips: Clips of every emotion each simulated subject shows.
            size: Height and width of the images, in pixels. The authors use 90, half of what is stored.
            steps: Images in a window, x of E_x-S_y.
            skip: Images skipped between two, y of E_x-S_y. The paper: E4-S0, E4-S1, E4-S3, E7-S0, E7-S1, E13-S0.
            channels: Equal copies of the one grey channel; 3 as the authors load them.
            modalities: What to decode and serve; `[frames]` for a set without events.
            event_values: `grey`: normalised grey values, as the authors; `ternary`: polarities -1, 0, 1.
            split: `official` or `subject`.
            val_fraction: Least share of the training clips cut off for validation, by subject. 0 is the authors'
                protocol: train on all of them and choose the epoch on the test part.
            eval_starts: Random windows of every clip in validation and test, fixed by `seed`. The paper takes 20.
            official_offset: Draw windows as the authors' code does, see `sample_official_windows`.
            cache_dir: Folder of the decoded images; `.cache` in the set's folder by default.
            seed: Seeds splits and evaluation windows, not training.
            batch_size: Samples in a batch, per process.
            num_workers: Loader processes.

        Raises:
            ConfigError: If an argument is out of its range.
            DataError: If the real set is asked for and missing, or its index is broken.
        """
        super().__init__(batch_size, num_workers)
        for key, value, least in (
            ("size", size, 1),
            ("steps", steps, 1),
            ("skip", skip, 0),
            ("channels", channels, 1),
            ("eval_starts", eval_starts, 1),
            ("modalities", len(modalities), 1),
        ):
            if value < least:
                raise ConfigError(f"data.init_args.{key} is {value}; set it to at least {least}")
        if not 0 <= val_fraction < 1:
            raise ConfigError(f"data.init_args.val_fraction is {val_fraction}; set it to at least 0 and below 1")
        self.find_source(root, source, simulated_root)
        self.simulated = {"subjects": simulated_subjects, "clips_per_class": simulated_clips}
        self.size, self.steps, self.skip, self.channels = size, steps, skip, channels
        self.modalities, self.event_values = tuple(modalities), event_values
        self.split, self.val_fraction, self.eval_starts = split, val_fraction, eval_starts
        self.official_offset, self.cache_dir, self.seed = official_offset, cache_dir, seed

        index = read_index(self.root) if self.data_source == "real" else None
        self.class_names = index.labels if index else list(EMOTIONS)
        self.input_shapes = {name: (steps, channels, size, size) for name in self.modalities}
        known = {clip.lighting for clip in index.clips} if index else set(LIGHTINGS)
        self.groups = {"lighting": list(LIGHTINGS) if known <= set(LIGHTINGS) else sorted(known)}
        if eval_starts > 1:
            self.groups["run"] = [str(run) for run in range(eval_starts)]

    @property
    def split_key(self) -> dict[str, Any]:
        """Split, fraction and seed of the validation part."""
        return {"split": self.split, "val_fraction": self.val_fraction, "seed": self.seed}

    def prepare_data(self) -> None:
        """Makes the simulated set if it is the one, and decodes all clips into the cache. One process."""
        if self.data_source == "simulated":
            from sdsnn_lightning.simulate.eye import write_simulated_see

            write_simulated_see(self.root, **self.simulated)
        build_cache(read_index(self.root), self.size, self.modalities, self.cache_dir)

    def setup(self, stage: str) -> None:
        """Splits the clips. Every process.

        Args:
            stage: Ignored: all parts are cheap.

        Raises:
            DataError: If a part is empty, or a clip is too short for a window.
        """
        index = read_index(self.root)
        clips = index.clips
        if index.labels != self.class_names:
            raise DataError(
                f"{index.path}: the labels are {index.labels}, expected {self.class_names}; restore the file"
            )
        cache = ClipCache(cache_folder(index, self.size, self.modalities, self.cache_dir))
        for name, chosen in zip(("train", "val", "test"), self.split_clips(clips), strict=True):
            if not chosen:
                raise DataError(f"{index.path}: no clip is left for the {name} part; mend the subsets or the split")
            part = WindowDataset(
                cache,
                chosen,
                names=[clip.name for clip in clips],
                target=[index.labels.index(clip.label) for clip in clips],
                lighting=[self.groups["lighting"].index(clip.lighting) for clip in clips],
                steps=self.steps,
                skip=self.skip,
                official_offset=self.official_offset,
                runs=None if name == "train" else self.eval_starts,
                seed=self.seed,
            )
            setattr(self, f"{name}_set", part)

    def split_clips(self, clips: Sequence[Clip]) -> tuple[list[int], list[int], list[int]]:
        """Splits the clips as asked for.

        Args:
            clips: All clips of the index.

        Returns:
            Positions of the training, validation and test clips.
        """
        if self.split == "subject":
            train, test = split_subjects(clips, range(len(clips)), TEST_FRACTION, self.seed)
            stated: list[int] = []
        else:
            parts = {subset: [i for i, c in enumerate(clips) if c.subset == subset] for subset in SUBSETS}
            train, stated, test = (parts[subset] for subset in SUBSETS)
        if stated or not train:  # a manifest may fix its own validation part
            return train, stated, test
        if self.val_fraction == 0:
            rank_zero_warn("val_fraction is 0: validation runs on the TEST part, as the authors of SEEN did.")
            return train, test, test
        train, val = split_subjects(clips, train, self.val_fraction, self.seed)
        return train, val, test

    def views(self, sample: dict[str, Tensor], training: bool) -> tuple[View, View]:
        """Normalises the images and copies their channel; there is no spatial augmentation, as in the paper.

        Args:
            sample: `frames` and `events`, those of `modalities`, uint8 `[B, T, 1, size, size]`.
            training: Ignored.

        Returns:
            float32 `[B, T, channels, size, size]` by modality; the same dict twice.
        """
        view = eye_view({name: sample[name] for name in self.modalities}, self.channels, self.event_values)
        return view, view
