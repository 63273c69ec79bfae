"""Recordings of spike trains as a data set, and how they are split by speaker."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdsnn_lightning.data.speech_words import DIGITS
from sdsnn_lightning.data.spike_cache import SpikeCache

_GERMAN = ("null", "eins", "zwei", "drei", "vier", "fuenf", "fünf", "sechs", "sieben", "acht", "neun")
_HELD_OUT = 0.15


def hold_out_speakers(speakers: np.ndarray, labels: np.ndarray, share: float = _HELD_OUT) -> list[int]:
    """Chooses whole speakers for validation: the same ones every time, and such that both parts have every word.

    Takes the speaker who adds most words that are still missing, the lowest number first, until `share` of the speakers
    are taken and no word is missing. Never one who alone says a word.

    Args:
        speakers: Speaker of every recording, int64 `[recordings]`.
        labels: Word of every recording, int64 `[recordings]`.
        share: Wanted share of the speakers; at least one is taken.

    Returns:
        Numbers of the speakers, ascending; empty if nobody can be spared.
    """
    numbers, of_speaker = np.unique(speakers, return_inverse=True)
    says = np.zeros((len(numbers), int(labels.max()) + 1), bool)
    says[of_speaker, labels] = True
    words, taken = says.any(0), np.zeros(len(numbers), bool)
    while True:
        missing = words & ~says[taken].any(0)
        enough = taken.sum() >= max(1, round(share * len(numbers)))
        if enough and not missing.any():
            break
        left = says[~taken].sum(0)  # speakers left to say a word
        free = [k for k in np.flatnonzero(~taken) if (left > says[k])[words].all()]
        adds = [int((says[k] & missing).sum()) for k in free]
        if not free or (enough and not max(adds)):
            break
        taken[free[int(np.argmax(adds))]] = True
    return [int(number) for number in numbers[taken]]


class Utterances(Dataset):
    """Rows of a spike cache: events as they are, without a time resolution."""

    def __init__(self, cache: SpikeCache, rows: np.ndarray, groups: dict[str, np.ndarray]) -> None:
        """Creates the data set.

        Args:
            cache: The recordings.
            rows: Those of this part.
            groups: Group index of every one of these rows, by grouping.
        """
        self.cache, self.rows, self.groups = cache, rows, groups

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        """One recording: `times` (seconds, float16 or float32 `[N]`), `units` int16 `[N]`, `target` and its groups."""
        row = self.rows[index]
        times, units = self.cache.spikes(row)
        groups = {name: int(values[index]) for name, values in self.groups.items()}
        return {
            "times": torch.from_numpy(times),
            "units": torch.from_numpy(units),
            "target": int(self.cache.labels[row]),
            **groups,
        }


def languages(words: Sequence[str]) -> list[int]:
    """0 for an English and 1 for a German digit, by word; empty unless all are such digits, of both languages."""
    if not set(words) <= {*DIGITS, *_GERMAN} or not (set(words) & set(DIGITS) and set(words) & set(_GERMAN)):
        return []
    return [int(word in _GERMAN) for word in words]
