"""Background noise of a Speech Commands folder: crops of it, the `_silence_` class, and mixing it into words."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from sdsnn_lightning.data.audio import decode_all
from sdsnn_lightning.data.speech_words import BACKGROUND, is_recording
from sdsnn_lightning.errors import DataError


class BackgroundNoise:
    """Long noise recordings, from which crops of one length are taken anywhere.

    Attributes:
        sound: All recordings in a row, int16 `[N]`.
    """

    def __init__(self, sounds: Sequence[np.ndarray], samples: int) -> None:
        """Keeps the recordings in memory: six minutes, the noise of Speech Commands, are 12 MB at 16 kHz.

        Args:
            sounds: Recordings, int16 `[S]`. Those shorter than a crop are repeated to its length.
            samples: Length of a crop.
        """
        long = [np.resize(sound, max(len(sound), samples)) for sound in sounds]
        lengths = torch.tensor([len(sound) for sound in long])
        self.samples = samples
        self.sound = torch.from_numpy(np.concatenate(long))
        counts = lengths - samples + 1  # crops in each recording
        skipped = (lengths - counts).cumsum(0) - (lengths - counts)  # no crop spans two recordings
        self._tables: tuple[Tensor, ...] = (self.sound, counts.cumsum(0), skipped)
        self._on_device: tuple[Tensor, ...] = self._tables  # where they were last wanted

    def crops(self, where: Tensor) -> Tensor:
        """Takes crops.

        Args:
            where: `[B]` in [0, 1): the position of each crop among all there are, on any device.

        Returns:
            int16 `[B, S]`.
        """
        tables = self._tables
        if where.device != self.sound.device:
            if where.device != self._on_device[0].device:
                self._on_device = tuple(tensor.to(where.device) for tensor in self._tables)
            tables = self._on_device
        sound, ends, skipped = tables
        crop = (where * ends[-1]).long().clamp_max(ends[-1] - 1)
        start = crop + skipped[torch.searchsorted(ends, crop, right=True)]
        return sound.unfold(0, self.samples, 1)[start]

    def __getstate__(self) -> dict[str, Any]:
        """Loader processes, which take crops for the class `_silence_`, get no copy on a device."""
        return self.__dict__ | {"_on_device": self._tables}


def load_background(root: Path, sample_rate: int, samples: int) -> BackgroundNoise:
    """Reads all recordings in `_background_noise_`.

    Args:
        root: Folder of the set.
        sample_rate: Rate in Hz.
        samples: Length of a crop.

    Raises:
        DataError: If there are none, or one is broken.

    Warns:
        If some are stereo or of another rate.
    """
    folder = root / BACKGROUND
    names = sorted(filter(is_recording, os.listdir(folder))) if folder.is_dir() else []
    if not names:
        raise DataError(
            f"{folder} holds no .wav or .flac file; restore it, or do without the class _silence_ and set "
            "data.init_args.noise_probability: 0"
        )
    other: list[str] = []  # what had to be converted
    sounds = list(decode_all(folder, names, sample_rate, other))
    if other:
        rank_zero_warn(
            f"{folder}: {len(other)} of {len(names)} recordings are converted to mono at {sample_rate} Hz, "
            f"the first of them {other[0]}"
        )
    return BackgroundNoise(sounds, samples)


class Silence(Dataset):
    """The class `_silence_`: crops of background noise, each at its own volume, uniform in [0, 1].

    As in the official training code: fresh crops whenever one is asked for in training, and the same ones always in
    validation and test. All parts draw from the same noise recordings, since the set has no others.
    """

    def __init__(self, noise: BackgroundNoise, count: int, target: int, seed: tuple[int, ...] | None = None) -> None:
        """Creates the data set.

        Args:
            noise: Where crops come from.
            count: Number of samples.
            target: Class index.
            seed: Fixes every crop; None draws anew each time.
        """
        self.noise, self.count, self.target, self.seed = noise, count, target, seed

    def __len__(self) -> int:
        """Number of samples."""
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        """One sample: `audio` int16 `[S]`, and `target`."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        if self.seed is None:
            where, volume = torch.rand(2)
        else:
            where, volume = torch.from_numpy(np.random.default_rng([*self.seed, index]).random(2, dtype=np.float32))
        crop = self.noise.crops(where[None])[0]
        return {"audio": (crop * volume).round().to(torch.int16), "target": self.target}


def mix_background(waveform: Tensor, noise: BackgroundNoise, probability: float, volume: float) -> Tensor:
    """Adds a crop of background noise to some waveforms, and clips as a recorder would.

    Args:
        waveform: `[B, S]` in [-1, 1].
        noise: Where crops come from.
        probability: Chance that a waveform gets noise; 0.8 in the official training code.
        volume: Factor on the noise, uniform in [0, `volume`]; 0.1 in the official training code.

    Returns:
        `[B, S]` in [-1, 1].
    """
    where, chance, loud = torch.rand(3, len(waveform), device=waveform.device)
    crops = noise.crops(where).to(waveform.dtype) / 32768.0
    gain = loud * volume * (chance < probability)
    return (waveform + gain[:, None] * crops).clamp(-1, 1)
