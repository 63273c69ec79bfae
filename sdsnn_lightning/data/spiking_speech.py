"""Spoken words as spike trains of an artificial cochlea, in the layout that SHD and SSC share."""

from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from sdsnn_lightning.data.base import DataModule, Source
from sdsnn_lightning.data.spike_archives import ADDRESS, CLASSES, MD5, fetch_spikes
from sdsnn_lightning.data.spike_bins import Align, bin_spikes, mask_spikes, pad_spikes, seconds
from sdsnn_lightning.data.spike_cache import SpikeCache, build_spikes, spike_cache_file
from sdsnn_lightning.data.spike_files import SpikeFile
from sdsnn_lightning.data.spike_rules import CHANNELS
from sdsnn_lightning.data.utterances import Utterances, hold_out_speakers
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.types import View

Validation = Literal["speakers", "file", "test"]


class SpikingSpeech(DataModule):
    """Spoken words as spikes of 700 cochlear channels, binned into frames on the device.

    Reads `<prefix>_train.h5`, `<prefix>_test.h5` and, where it validates on a file of its own, `<prefix>_valid.h5`, in
    the layout of SHD. A batch holds events; both views are made from it, so that a curriculum can change the
    resolution between two batches, and student and teacher always see the same utterances.

    Gives `spikes`, float32 `[B, T, 700 // group]`, and `mask`, bool `[B, T]`, True on real frames; T is that of the
    longest recording in the batch.

    Attributes:
        protocol: What picks the checkpoint: held-out `speakers`, a validation `file`, or the `test` set; written into
            every result.
    """

    collate = staticmethod(pad_spikes)

    def __init__(
        self,
        root: str,
        simulated_root: str,
        prefix: str,
        validation: Validation,
        time_mask: float,
        neuron_mask: int,
        source: Source = "auto",
        val_speakers: list[int] | None = None,
        step_ms: float = 10.0,
        teacher_step_ms: float | None = None,
        align: Align = "first_spike",
        group: int = 5,
        augment: bool = True,
        download: bool = False,
        cache_dir: str | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        """Creates the module.

        Args:
            root: Folder of the real set.
            simulated_root: Folder of the simulated set; made when missing.
            prefix: First part of the file names.
            validation: Validate on held-out `speakers` of the training file, on a `file` of its own, or on the `test`
                file as the papers on SHD do, which tells nothing about new data.
            time_mask: Share of the frames that the time mask hides, in [0, 1).
            neuron_mask: One more than the most (grouped) channels that the neuron mask hides.
            source: `real`, `simulated`, or `auto`: real if `root` exists.
            val_speakers: Speakers to hold out; chosen by `hold_out_speakers` by default.
            step_ms: Duration of one time step of the student's view in milliseconds.
            teacher_step_ms: The same of the teacher's view; as the student's by default.
            align: Whether time begins with the `first_spike`, as in SpikeSCR's loaders, or with the recording (`zero`).
            group: Neighbouring channels that are added into one; a divisor of 700.
            augment: Mask time and channels of the student's view in training. The teacher's view is never augmented.
            download: Fetch missing files of SHD or SSC from their authors' server.
            cache_dir: Folder of the checked and flattened spikes; `.cache` in the set's folder by default.
            batch_size: Recordings in a batch, per process.
            num_workers: Loader processes.

        Raises:
            ConfigError: If a number is out of its range, or nothing is known to download.
            DataError: If the real set is asked for and incomplete.
        """
        super().__init__(batch_size, num_workers)
        self.prefix, self.validation, self.val_speakers = prefix, validation, val_speakers
        self.align, self.group, self.augment, self.cache_dir = align, group, augment, cache_dir
        self.time_mask, self.neuron_mask = time_mask, neuron_mask
        if group < 1 or CHANNELS % group:
            raise ConfigError(f"data.init_args.group is {group}; set it to a divisor of {CHANNELS}")
        if not 0 <= time_mask < 1:
            raise ConfigError(f"data.init_args.time_mask is {time_mask}; set it to at least 0 and below 1")
        if not 0 <= neuron_mask < CHANNELS // group:
            raise ConfigError(f"data.init_args.neuron_mask is {neuron_mask}; set it to 0 to {CHANNELS // group - 1}")
        if val_speakers is not None and validation != "speakers":
            raise ConfigError(
                "data.init_args.val_speakers holds out speakers; set validation: speakers, or take it out"
            )
        self.set_resolution(step_ms, teacher_step_ms)
        self.protocol = validation
        if validation == "test":
            rank_zero_warn(
                "validation: test picks the checkpoint on the test set, as the papers on SHD do: its score tells "
                "nothing about new data. Results are marked protocol: test."
            )

        self.download = download and source != "simulated"
        if self.download:
            self.data_source, self.root = "real", Path(root)
            strange = [path.name for path in self._files().values() if path.name not in MD5]
            if strange:
                raise ConfigError(f"data.init_args.download: no address is known for {strange[0]}; put the file there")
        else:
            self.find_source(root, source, simulated_root)
        if self.data_source == "simulated" and self.prefix not in CLASSES:
            # What describes the files of a set of one's own does not describe the simulated digits.
            self.prefix, self.val_speakers = "shd", None
            self.validation = self.protocol = "speakers" if validation == "file" else validation
        self.class_names = self._find_names()

    @property
    def split_key(self) -> dict[str, Any]:
        """The arguments that decide which recordings are in which part."""
        return {"prefix": self.prefix, "validation": self.validation, "val_speakers": self.val_speakers}

    def set_resolution(self, step_ms: float, teacher_step_ms: float | None = None) -> None:
        """Sets the time step of both views, from the next batch on.

        Args:
            step_ms: Duration of one time step of the student's view in milliseconds.
            teacher_step_ms: The same of the teacher's view; None: the same.

        Raises:
            ConfigError: If one is not a positive number.
        """
        for key, value in (("step_ms", step_ms), ("teacher_step_ms", teacher_step_ms)):
            if value is not None and not (isfinite(value) and value > 0):
                raise ConfigError(f"data.init_args.{key} is {value}; set it to a number of milliseconds above 0")
        self.step_ms, self.teacher_step_ms = step_ms, teacher_step_ms
        steps = max(1, round(1000 / step_ms))  # of one second; batches are as long as their longest recording
        self.input_shapes = {"spikes": (steps, CHANNELS // self.group), "mask": (steps,)}

    def _files(self) -> dict[str, Path]:
        """The files in use by part."""
        parts = ("train", "valid", "test") if self.validation == "file" else ("train", "test")
        return {part: self.root / f"{self.prefix}_{part}.h5" for part in parts}

    def _find_names(self) -> list[str]:
        """The words, as the training file names them; where it is yet to be made or fetched, `setup` corrects them."""
        if self.data_source == "simulated":
            from sdsnn_lightning.simulate.speech import WORDS
            from sdsnn_lightning.simulate.spiking_speech import ENGLISH_DIGITS, GERMAN_DIGITS

            return sorted(WORDS) if self.prefix == "ssc" else [*ENGLISH_DIGITS, *GERMAN_DIGITS]
        missing = [path for path in self._files().values() if not path.is_file()]
        if missing and self.download:
            return [str(k) for k in range(CLASSES[self.prefix])]
        if missing:
            fetch = f", set data.init_args.download: true to fetch it from {ADDRESS}," if missing[0].name in MD5 else ""
            raise DataError(f"{missing[0]} does not exist; put it there{fetch} or set source: simulated")
        return SpikeFile(self._files()["train"]).class_names

    def prepare_data(self) -> None:
        """Makes or fetches what is missing, then checks and flattens every file into its cache. One process."""
        if self.data_source == "simulated":
            from sdsnn_lightning.simulate.spiking_speech import write_simulated_spikes

            write_simulated_spikes(self.root, self.prefix)
        for path in self._files().values():
            if self.download:
                fetch_spikes(path)
            build_spikes(path, self.cache_dir)

    def setup(self, stage: str) -> None:
        """Splits the recordings. Every process.

        Args:
            stage: Ignored: all parts are cheap.

        Raises:
            DataError: If the files do not go together, or no speaker can be held out.
        """
        files = self._files()
        caches = {part: SpikeCache(spike_cache_file(path, self.cache_dir)) for part, path in files.items()}
        names = caches["train"].class_names
        for part, cache in caches.items():
            others = cache.class_names  # fewer where the files do not name them and a part lacks the last ones
            if others != names[: len(others)]:
                raise DataError(f"{files[part]} and {files['train'].name} have other words in extra/keys; replace one")
        if len(names) != self.num_classes:
            raise DataError(f"{files['train']} has {len(names)} words instead of {self.num_classes}; replace the file")
        self.class_names = names

        train = caches["train"]
        rows = {part: np.arange(len(cache)) for part, cache in caches.items()}
        if self.validation == "speakers":
            held_out = np.isin(train.speakers, self._held_out(train, files["train"]))
            caches["valid"], rows["valid"], rows["train"] = train, np.flatnonzero(held_out), np.flatnonzero(~held_out)
        elif self.validation == "test":
            caches["valid"], rows["valid"] = caches["test"], rows["test"]
        known = np.unique(train.speakers[rows["train"]])
        for part, name in (("train", "train_set"), ("valid", "val_set"), ("test", "test_set")):
            cache, chosen = caches[part], rows[part]
            groups = self._group(cache.labels[chosen], cache.speakers[chosen], known)
            setattr(self, name, Utterances(cache, chosen, groups))

    def _held_out(self, train: SpikeCache, path: Path) -> list[int]:
        """The speakers to validate on."""
        other = "set validation: file or test"
        cure = f"name them in data.init_args.val_speakers, or {other}"
        there = np.unique(train.speakers)
        chosen = self.val_speakers
        if (there < 0).any():
            raise DataError(f"{path} does not say who speaks (extra/speaker), so none can be held out; {other}")
        if chosen is None:
            chosen = hold_out_speakers(train.speakers, train.labels)
            if not chosen:
                raise DataError(f"{path}: no speaker can be held out, each alone says some word; {cure}")
        strange = sorted(set(chosen) - set(there.tolist()))
        if strange or not chosen or len(set(chosen)) == len(there):
            raise ConfigError(
                f"data.init_args.val_speakers is {chosen}; choose some, not all, of the speakers {there.tolist()}"
            )
        return chosen

    def _group(self, labels: np.ndarray, speakers: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
        """Group indices of recordings, for the groupings of `groups`; none here."""
        return {}

    def views(self, sample: dict[str, Tensor], training: bool) -> tuple[View, View]:
        """Bins the events at both resolutions, and masks the student's view in training.

        Args:
            sample: `times`, `units` and `counts` of `pad_spikes`.
            training: Whether to augment, where `augment` is set.

        Returns:
            `spikes` float32 `[B, T, 700 // group]` and `mask` bool `[B, T]`, each twice; the same dict where both
            resolutions are one and nothing is augmented.
        """
        times, units, counts = seconds(sample["times"]), sample["units"], sample["counts"]

        def view(step_ms: float) -> View:
            return bin_spikes(times, units, counts, step_ms, self.group, self.align)

        student = view(self.step_ms)
        teacher = (
            student if self.teacher_step_ms in (None, self.step_ms) else view(self.teacher_step_ms or self.step_ms)
        )
        if training and self.augment:
            student = mask_spikes(student, self.time_mask, self.neuron_mask)
        return student, teacher
