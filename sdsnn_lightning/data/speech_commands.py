"""Keyword spotting: Speech Commands, sets in its layout, and the simulated stand-in."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdsnn_lightning.data.audio import LogMel, draw_bands, mask_bands, random_gain_noise, random_shift
from sdsnn_lightning.data.base import DataModule, Source
from sdsnn_lightning.data.waveform_cache import build_waveforms, cache_file, open_waveforms
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.simulate.speech import WORDS, write_simulated_commands
from sdsnn_lightning.types import View

Part = Literal["train", "val", "test"]

LISTS: dict[Part, str] = {"val": "validation_list.txt", "test": "testing_list.txt"}
_BACKGROUND = "_background_noise_"
_MAX_PER_CLASS = 2**27 - 1  # the constant of the official rule

# Augmentation of the training part. The official training code shifts by as much; the rest is ours.
_SHIFT_SECONDS = 0.1
_GAIN_DB = 6.0
_SNR_DB = (10.0, 40.0)
_MASK_TIME, _MASK_MEL = 0.2, 0.2


def hash_part(file: str, val_percent: float = 10.0, test_percent: float = 10.0) -> Part:
    """Assigns a recording to a part by the official rule of Speech Commands: by a hash of its speaker.

    Warden, 2018 (arXiv 1804.03209), section 6 and `which_set` in the data set's README: SHA-1 of the file name before
    `_nohash_`, so that a speaker's recordings stay together and adding recordings moves no other one.

    Args:
        file: `<word>/<speaker>_nohash_<take>.wav`, or the name alone.
        val_percent: Share of the validation part.
        test_percent: Share of the test part.

    Returns:
        `train`, `val` or `test`.
    """
    number = int(hashlib.sha1(speaker_of(file).encode()).hexdigest(), 16)
    percent = number % (_MAX_PER_CLASS + 1) * (100.0 / _MAX_PER_CLASS)
    if percent < val_percent:
        return "val"
    return "test" if percent < val_percent + test_percent else "train"


def speaker_of(file: str) -> str:
    """The speaker in `<word>/<speaker>_nohash_<take>.wav`.

    Raises:
        DataError: If the name has no `_nohash_`.
    """
    speaker, found, _ = file.rsplit("/", 1)[-1].partition("_nohash_")
    if not found or not speaker:
        raise DataError(f"{file} names no speaker; rename it to <word>/<speaker>_nohash_<take>.wav or delete it")
    return speaker


def list_words(root: Path) -> list[str]:
    """The word folders of a set, sorted, without background noise and hidden folders."""
    return sorted(p.name for p in root.iterdir() if p.is_dir() and p.name != _BACKGROUND and p.name[0] != ".")


def split_files(root: Path, words: Sequence[str]) -> dict[Part, list[str]]:
    """Finds all recordings of some words and splits them by the set's list files, or by the official hash without any.

    Args:
        root: Holds `<word>/<speaker>_nohash_<take>.wav` (or `.flac`), and perhaps both official list files.
        words: Names of the word folders.

    Returns:
        Paths below `root` in the training, validation and test part, sorted.

    Raises:
        DataError: If a word or a listed recording is missing, a name has no speaker, only one list is there, a
            recording stands in both, or a part is empty.
    """
    files = []
    for word in words:
        if not (root / word).is_dir():
            raise DataError(f"{root / word} does not exist; restore the folder or change data.init_args.classes")
        found = sorted(name for name in os.listdir(root / word) if name.endswith((".wav", ".flac")))
        if not found:
            raise DataError(f"{root / word} holds no .wav or .flac file; restore the folder")
        files += [f"{word}/{name}" for name in found]
    for file in files:
        speaker_of(file)

    parts: dict[Part, list[str]] = {"train": [], "val": [], "test": []}
    if any((root / name).exists() for name in LISTS.values()):
        listed = {part: _read_list(root / name, words, set(files)) for part, name in LISTS.items()}
        both = sorted(listed["val"] & listed["test"])
        if both:
            raise DataError(f"{root / LISTS['test']} and {LISTS['val']} both name {both[0]}; restore both files")
        for file in files:
            parts["val" if file in listed["val"] else "test" if file in listed["test"] else "train"].append(file)
    else:
        for file in files:
            parts[hash_part(file)].append(file)
    for part, chosen in parts.items():
        if not chosen:
            raise DataError(f"{root}: no recording is left for the {part} part; restore the set or its list files")
    return parts


def _read_list(path: Path, words: Sequence[str], files: set[str]) -> set[str]:
    """Reads one official list file, as far as it is about these words, and checks that its recordings are there."""
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); restore it, or delete {' and '.join(LISTS.values())} to split by hash"
        ) from None
    named = {line for line in lines if line.partition("/")[0] in words}
    missing = sorted(named - files)
    if missing:
        raise DataError(f"{path} names {missing[0]}, which is missing ({len(missing)} in all); restore the recordings")
    return named


class Recordings(Dataset):
    """Rows of the waveform cache with their word."""

    def __init__(self, path: Path, rows: Sequence[int], targets: Sequence[int]) -> None:
        """Opens the data set.

        Args:
            path: The waveform cache.
            rows: Rows of the cache in this part.
            targets: Word index of each of these rows.
        """
        self.path, self.rows, self.targets = path, np.asarray(rows), np.asarray(targets)
        self.waveforms = open_waveforms(path)  # int16 [recordings, S]

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        """One recording: `audio` int16 `[S]`, and `target`."""
        return {
            "audio": torch.from_numpy(np.array(self.waveforms[self.rows[index]])),
            "target": int(self.targets[index]),
        }

    def __reduce__(self) -> tuple[type["Recordings"], tuple[Path, np.ndarray, np.ndarray]]:
        """Loader processes open the cache again instead of receiving a copy of it."""
        return Recordings, (self.path, self.rows, self.targets)


class SpeechCommands(DataModule):
    """One spoken word a recording, as log-mel spectrograms.

    Speech Commands (Warden, 2018, arXiv 1804.03209) and every set in its layout: one folder a word, files named
    `<speaker>_nohash_<take>.wav` (or `.flac`), and two list files that name the validation and the test recordings.
    Both its lists and its hash rule keep a speaker within one part. Every word folder is a class: 30 or 35 in the two
    releases; `classes` chooses some of them.

    Recordings are decoded once, and stay waveforms up to the device, where the spectrogram is computed, so that shift,
    gain and noise act on sound.
    """

    def __init__(
        self,
        root: str = "data/speech_commands",
        source: Source = "auto",
        simulated_root: str = "data/speech-commands-simulated",
        classes: list[str] | None = None,
        steps: int = 50,
        teacher_steps: int | None = None,
        n_mels: int = 40,
        n_fft: int = 512,
        hop: int = 160,
        f_min: float = 20.0,
        f_max: float | None = None,
        sample_rate: int = 16000,
        seconds: float = 1.0,
        augment: bool = True,
        cache_dir: str | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        """Creates the module.

        Args:
            root: Folder of the real set.
            source: `real`, `simulated`, or `auto`: real if `root` exists.
            simulated_root: Folder of the simulated set; made when missing.
            classes: Words to tell apart, in index order; all word folders, sorted, by default.
            steps: Time steps T of the student's view. At most one a hop; fewer average neighbouring frames.
            teacher_steps: Time steps of the teacher's view; as many as the student's by default.
            n_mels: Mel bins.
            n_fft: Window of the spectrogram in samples.
            hop: Samples between two frames of the spectrogram.
            f_min: Lower end of the mel filters in Hz.
            f_max: Upper end of the mel filters in Hz; half the sample rate by default.
            sample_rate: Rate in Hz; recordings of another rate are resampled.
            seconds: Length that recordings are cut or padded to.
            augment: Shift, scale, add noise to and mask (SpecAugment) the training recordings.
            cache_dir: Folder of the decoded recordings; `.cache` in the set's folder by default.
            batch_size: Samples in a batch, per process.
            num_workers: Loader processes.

        Raises:
            ConfigError: If there are more steps than frames.
            DataError: If the real set is asked for and missing, or holds no word.
        """
        super().__init__(batch_size, num_workers)
        self.sample_rate, self.samples = sample_rate, round(sample_rate * seconds)
        self.steps, self.teacher_steps, self.augment, self.cache_dir = steps, teacher_steps, augment, cache_dir
        for key, value in (("steps", steps), ("teacher_steps", teacher_steps or steps)):
            if not 1 <= value <= self.samples // hop:
                raise ConfigError(
                    f"data.init_args.{key} is {value}; set it to 1 to {self.samples // hop}, the frames, or lower hop"
                )
        self.log_mel = LogMel(sample_rate, n_fft, hop, n_mels, f_min, f_max)
        self.input_shapes = {"audio": (steps, n_mels)}
        self.find_source(root, source, simulated_root)
        words = list_words(self.root) if self.data_source == "real" else sorted(WORDS)
        self.class_names = list(classes) if classes else words
        if not self.class_names:
            raise DataError(f"{self.root} holds no word folder; put <word>/<speaker>_nohash_<take>.wav there")

    def prepare_data(self) -> None:
        """Makes the simulated set if it is the one, and decodes all recordings into the cache. One process."""
        if self.data_source == "simulated":
            write_simulated_commands(self.root)
        files = [file for part in split_files(self.root, self.class_names).values() for file in part]
        build_waveforms(self.root, files, self.sample_rate, self.samples, self.cache_dir)

    def setup(self, stage: str) -> None:
        """Splits the recordings. Every process.

        Args:
            stage: Ignored: all parts are cheap.

        Raises:
            DataError: If the set is incomplete.
        """
        parts = split_files(self.root, self.class_names)
        files = [file for part in parts.values() for file in part]
        path = cache_file(self.root, files, self.sample_rate, self.samples, self.cache_dir)
        start = 0
        for part, chosen in parts.items():
            targets = [self.class_names.index(file.partition("/")[0]) for file in chosen]
            setattr(self, f"{part}_set", Recordings(path, range(start, start + len(chosen)), targets))
            start += len(chosen)

    def views(self, sample: dict[str, Tensor], training: bool) -> tuple[View, View]:
        """Computes normalised log-mel spectrograms, of augmented sound in training.

        Student and teacher see the same shift, noise and masks, whatever their time steps.

        Args:
            sample: `audio`, int16 `[B, S]`.
            training: Whether to augment, where `augment` is set.

        Returns:
            `audio`, float32 `[B, T, mels]`; the same dict twice unless `teacher_steps` differs from `steps`.
        """
        waveform = sample["audio"].float() / 32768.0
        self.log_mel.to(waveform.device)
        bands = None
        if training and self.augment:
            waveform = random_shift(waveform, round(_SHIFT_SECONDS * self.sample_rate))
            waveform = random_gain_noise(waveform, _GAIN_DB, _SNR_DB)
            bands = draw_bands(len(waveform), _MASK_TIME, _MASK_MEL, waveform.device)

        def view(steps: int) -> View:
            log_mel = self.log_mel(waveform, steps)
            return {"audio": log_mel if bands is None else mask_bands(log_mel, bands)}

        student = view(self.steps)
        return student, student if self.teacher_steps in (None, self.steps) else view(self.teacher_steps)
