"""Keyword spotting: Speech Commands, sets in its layout, and the simulated stand-in."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from sdsnn_lightning.data.audio import random_gain_noise, random_shift
from sdsnn_lightning.data.base import DataModule, Source
from sdsnn_lightning.data.speech_download import ARCHIVES, download_speech_commands
from sdsnn_lightning.data.speech_front_end import Fill, FrontEnd, LogMel, draw_bands, mask_bands
from sdsnn_lightning.data.speech_noise import BackgroundNoise, Silence, load_background, mix_background
from sdsnn_lightning.data.speech_words import (
    PARTS,
    SILENCE,
    UNKNOWN,
    all_words,
    average_class,
    choose_files,
    list_words,
    name_classes,
)
from sdsnn_lightning.data.waveform_cache import Recordings, build_waveforms, cache_file
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.simulate.speech import WORDS, write_simulated_commands
from sdsnn_lightning.types import View

# Augmentation of the training part. The official training code shifts by as much; the rest is ours.
_SHIFT_SECONDS = 0.1
_GAIN_DB = 6.0
_SNR_DB = (10.0, 40.0)
_MASK_TIME, _MASK_MEL = 0.2, 0.2
# SpecAugment of SpikeSCR's official code: at most a quarter of the frames, rounded down, and ten mel bins.
_SPIKESCR_TIME, _SPIKESCR_BINS = 0.25, 10
_NOISE_VOLUME = 0.1  # of the official training code


class SpeechCommands(DataModule):
    """One spoken word a recording, as log-mel spectrograms.

    Speech Commands (Warden, 2018, arXiv 1804.03209) and every set in its layout: one folder a word, files named
    `<speaker>_nohash_<take>.wav` (or `.flac`), and two list files that name the validation and the test recordings.
    Both its lists and its hash rule keep a speaker within one part. Every word folder is a class: 30 or 35 in the two
    releases; `classes` chooses some of them, or the 10- and 12-class task.

    Recordings are decoded once, and stay waveforms up to the device, where the spectrogram is computed at the time
    steps of the student and of the teacher from the same sound, so that shift, gain and noise act on sound and a
    curriculum may change the time steps between batches.
    """

    def __init__(
        self,
        root: str = "data/speech_commands",
        source: Source = "auto",
        simulated_root: str = "data/speech-commands-simulated",
        download: bool = False,
        version: Literal[1, 2] = 2,
        classes: int | list[str] | None = None,
        class_seed: int = 0,
        fold: int = 0,
        step_ms: float = 10.0,
        teacher_step_ms: float | None = None,
        front_end: FrontEnd = "clean",
        hop: int | None = None,
        n_mels: int | None = None,
        n_fft: int | None = None,
        f_min: float | None = None,
        f_max: float | None = None,
        allow_above_nyquist: bool = False,
        sample_rate: int | None = None,
        seconds: float = 1.0,
        augment: bool = True,
        augment_teacher: bool = True,
        mask_fill: Fill = "mean",
        noise_probability: float = 0.0,
        cache_dir: str | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        """Creates the module.

        Args:
            root: Folder of the real set.
            source: `real`, `simulated`, or `auto`: real if `root` exists.
            simulated_root: Folder of the simulated set; made when missing.
            download: Fetch the official set into `root` if that does not exist.
            version: Release to download: 1 or 2.
            classes: Words to tell apart, in index order, all word folders, sorted, by default; or a number: 10 (yes,
                no, up, down, left, right, on, off, stop, go), 12 (the same with `_unknown_`, other words, and
                `_silence_`, background noise, each as large as an average word), 30 (all words of version 1) or 35
                (of version 2). A list may name `_unknown_` and `_silence_`, too.
            class_seed: Chooses the recordings of `_unknown_`, and of `_silence_` in validation and test.
            fold: Which group of speakers is tested, in a cross-validation over all speakers (see `rotate_speakers`); 0
                is the set's own split.
            step_ms: Duration of one time step of the student's view in milliseconds.
            teacher_step_ms: The same of the teacher's view; as the student's by default.
            front_end: `clean` (ours) or `spikescr` (SpikeSCR's official one), see `LogMel`. The latter's training
                augmentation is SpecAugment alone. Its recordings are kept at 16 kHz and brought to 8 kHz on the device
                by the official filter.
            hop: Samples between two frames of the spectrogram. One time step by default, so that each step is one
                frame; a number, at most a time step, computes finer frames and averages them in power (`clean` only).
            n_mels: Mel bins; the front-end's by default, as all of the next: 40 or 140.
            n_fft: Window of the spectrogram in samples; 512 or 256.
            f_min: Lower end of the mel filters in Hz; 20 or 50.
            f_max: Upper end of the mel filters in Hz; half the sample rate.
            allow_above_nyquist: Accept empty filters above half the sample rate, and have SpikeSCR's up to 14 kHz.
            sample_rate: Rate in Hz of the sound behind the spectrogram, 16000 or 8000; recordings of another rate
                are resampled.
            seconds: Length that recordings are cut or padded to.
            augment: Augment the training recordings: shift, scale, add white noise and mask (SpecAugment), or as the
                front-end says.
            augment_teacher: Show the teacher the same augmented sound. SpikeSCR's curriculum does not: there only
                the student's input is augmented.
            mask_fill: What SpecAugment puts in: the `mean` of every mel bin over the recording, its `floor`, or
                `zero`, as the official SpikeSCR code, which is 0 dB and louder than speech.
            noise_probability: Chance that background noise of the set is added to a training recording, at up to a
                tenth of its amplitude; 0.8 in the official training code of Speech Commands.
            cache_dir: Folder of the decoded recordings; `.cache` in the set's folder by default.
            batch_size: Samples in a batch, per process.
            num_workers: Loader processes.

        Raises:
            ConfigError: If an argument is out of its range, or a time step is not a whole number of samples.
            DataError: If the real set is asked for and missing, or holds no word.
        """
        super().__init__(batch_size, num_workers)
        for key, value in (("hop", hop), ("n_mels", n_mels), ("n_fft", n_fft), ("sample_rate", sample_rate)):
            if value is not None and value < 1:
                raise ConfigError(f"data.init_args.{key} is {value}; set it to at least 1")
        if not 0.001 <= seconds <= 3600:
            raise ConfigError(f"data.init_args.seconds is {seconds}; set it to 0.001 to 3600")
        if not 0 <= noise_probability <= 1:
            raise ConfigError(f"data.init_args.noise_probability is {noise_probability}; set it to 0 to 1")
        if front_end == "spikescr" and hop is not None:
            raise ConfigError("data.init_args.hop: front_end spikescr has one frame a step; leave hop out")
        if download and source == "simulated":
            raise ConfigError("data.init_args.download: source simulated needs no download; set source: auto or real")
        self.log_mel = LogMel(sample_rate, n_fft, n_mels, f_min, f_max, front_end, allow_above_nyquist)
        self.sample_rate = self.log_mel.recorded_rate  # of the waveforms; that of the spectrogram may be lower
        self.samples, self.hop = round(self.sample_rate * seconds), hop
        if front_end == "spikescr" and self.log_mel.resample.length(self.samples) <= self.log_mel.n_fft // 2:
            raise ConfigError(
                f"data.init_args.seconds is {seconds}, less than half a window of {self.log_mel.n_fft} samples; "
                "set it to more, or n_fft to less"
            )
        self.augment, self.augment_teacher, self.mask_fill = augment, augment_teacher, mask_fill
        self.noise_probability = noise_probability
        self.class_seed, self.fold, self.cache_dir = class_seed, fold, cache_dir
        self.noise: BackgroundNoise | None = None  # read in `setup`, where something needs it
        self.set_resolution(step_ms, teacher_step_ms)
        self.to_download: Literal[1, 2] | None = None
        if download and not Path(root).is_dir():
            self.data_source, self.root, self.to_download = "real", Path(root), version
            words = list(ARCHIVES[version].words)
        else:
            self.find_source(root, source, simulated_root)
            found = all_words if classes is None else list_words
            words = found(self.root) if self.data_source == "real" else sorted(WORDS)
        self.class_names = name_classes(classes, words, self.data_source == "simulated")
        if not self.class_names:
            raise DataError(f"{self.root} holds no word folder; put <word>/<speaker>_nohash_<take>.wav there")

    @property
    def split_key(self) -> dict[str, Any]:
        """The fold, which decides who is in which part."""
        return {"fold": self.fold}

    def set_resolution(self, step_ms: float, teacher_step_ms: float | None = None) -> None:
        """Sets the time step of both views, from the next batch on; a curriculum calls this between its stages.

        Args:
            step_ms: Duration of one time step of the student's view in milliseconds.
            teacher_step_ms: The same of the teacher's view; as the student's if None.

        Raises:
            ConfigError: If a step is not a whole number of samples, is shorter than the fixed `hop`, longer than the
                recording, or longer than the window, so that sound would fall between two frames.
        """
        steps = self._frames("step_ms", step_ms)[1]
        self._frames("teacher_step_ms", step_ms if teacher_step_ms is None else teacher_step_ms)
        self.step_ms, self.teacher_step_ms = step_ms, teacher_step_ms
        self.input_shapes = {"audio": (steps, self.log_mel.n_mels)}

    def _frames(self, key: str, step_ms: float) -> tuple[int, int]:
        """Hop in samples and number of time steps of a view; `key` names the argument in errors."""
        rate, samples = self.log_mel.sample_rate, self.log_mel.resample.length(self.samples)
        exact = rate * step_ms / 1000
        step = round(exact) if math.isfinite(exact) else 0
        if step < 1 or abs(exact - step) > 1e-6:
            raise ConfigError(
                f"data.init_args.{key} is {step_ms}, {exact:g} samples at {rate} Hz; "
                "set it to a whole number of samples"
            )
        hop = step if self.hop is None else self.hop
        if not 1 <= hop <= step <= samples or hop > self.log_mel.n_fft:
            most = min(samples, self.log_mel.n_fft if self.hop is None else samples)
            raise ConfigError(
                f"data.init_args.{key} is {step_ms}, {step} samples; set it to {1 if self.hop is None else hop} to "
                f"{most} samples, the hop and the window (n_fft), or change hop"
            )
        return hop, self.log_mel.frames(self.samples, hop) if self.hop is None else samples // step

    def prepare_data(self) -> None:
        """Fetches or simulates the set where that is asked for, and decodes all recordings into the cache. One process.

        Raises:
            DataError: If the set cannot be fetched, or is incomplete or broken.
        """
        if self.to_download:
            download_speech_commands(self.root, self.to_download)
        if self.data_source == "simulated":
            write_simulated_commands(self.root)
        parts = choose_files(self.root, self.class_names, self.class_seed, self.fold)
        files = [file for part in parts.values() for file, _ in part]
        self._read_noise()  # what is missing should be said before minutes of decoding
        build_waveforms(self.root, files, self.sample_rate, self.samples, self.cache_dir)

    def setup(self, stage: str) -> None:
        """Splits the recordings. Every process.

        Args:
            stage: Ignored: all parts are cheap.

        Raises:
            DataError: If the set is incomplete.
        """
        parts = choose_files(self.root, self.class_names, self.class_seed, self.fold)
        files = [file for part in parts.values() for file, _ in part]
        path = cache_file(self.root, files, self.sample_rate, self.samples, self.cache_dir)
        self._read_noise()
        start = 0
        for number, part in enumerate(PARTS):
            targets = [target for _, target in parts[part]]
            recordings = Recordings(path, range(start, start + len(targets)), targets)
            setattr(self, f"{part}_set", self._with_silence(recordings, None if part == "train" else number))
            start += len(targets)

    def _read_noise(self) -> None:
        """Reads the background noise where something needs it."""
        if self.noise is None and (self.noise_probability or SILENCE in self.class_names):
            self.noise = load_background(self.root, self.sample_rate, self.samples)

    def _with_silence(self, recordings: Recordings, number: int | None) -> Dataset:
        """Adds the class `_silence_` to a part, if there is one: fixed by the part's number, or drawn anew if None."""
        if SILENCE not in self.class_names or self.noise is None:
            return recordings
        names = [name for name in self.class_names if name not in (UNKNOWN, SILENCE)]
        known = np.isin(recordings.targets, [self.class_names.index(name) for name in names]).sum()
        seed = None if number is None else (self.class_seed, number)
        count = average_class(int(known), len(names))
        return ConcatDataset([recordings, Silence(self.noise, count, self.class_names.index(SILENCE), seed)])

    def views(self, sample: dict[str, Tensor], training: bool) -> tuple[View, View]:
        """Computes log-mel spectrograms, of augmented sound in training.

        Student and teacher see the same shift, noise and masks, whatever their time steps, unless `augment_teacher`
        is off.

        Args:
            sample: `audio`, int16 `[B, S]`.
            training: Whether to augment.

        Returns:
            `audio`, float32 `[B, T, mels]`; the same dict twice where both see the same.
        """
        recorded = sample["audio"].float() / 32768.0
        self.log_mel.to(recorded.device)
        waveform, bands = self._augment(recorded) if training else (recorded, None)
        student = self._view(waveform, bands, self.step_ms)
        step_ms = self.step_ms if self.teacher_step_ms is None else self.teacher_step_ms
        if training and not self.augment_teacher:
            return student, self._view(recorded, None, step_ms)
        return student, student if step_ms == self.step_ms else self._view(waveform, bands, step_ms)

    def _augment(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Augments waveforms `[B, S]`, and draws the bands of SpecAugment `[B, 4]`."""
        if self.noise_probability and self.noise is not None:
            waveform = mix_background(waveform, self.noise, self.noise_probability, _NOISE_VOLUME)
        if not self.augment:
            return waveform, None
        if self.log_mel.style == "spikescr":
            steps, mels = self.input_shapes["audio"]
            time, mel = int(_SPIKESCR_TIME * steps) / steps, min(1.0, _SPIKESCR_BINS / mels)
            return waveform, draw_bands(len(waveform), time, mel, waveform.device, shared_mel=True)
        waveform = random_shift(waveform, round(_SHIFT_SECONDS * self.sample_rate))
        waveform = random_gain_noise(waveform, _GAIN_DB, _SNR_DB)
        return waveform, draw_bands(len(waveform), _MASK_TIME, _MASK_MEL, waveform.device)

    def _view(self, waveform: Tensor, bands: Tensor | None, step_ms: float) -> View:
        """One view at one time step."""
        hop, steps = self._frames("step_ms", step_ms)
        log_mel = self.log_mel(waveform, hop, steps)
        if bands is not None:
            log_mel = mask_bands(log_mel, bands, self.log_mel.fill(log_mel, self.mask_fill))
        return {"audio": log_mel}
