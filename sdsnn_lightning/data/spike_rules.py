"""What spike trains of a cochlea must be like, checked for many recordings at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sdsnn_lightning.errors import DataError

CHANNELS = 700
LONGEST_SECONDS = 60.0
"""Recordings of words are shorter; longer ones have times in another unit than seconds."""


class SpikeChunk(NamedTuple):
    """Some neighbouring recordings, their spikes one after the other.

    Attributes:
        times: Seconds, float16 or float32 `[sum N]`.
        units: Channels, int16 `[sum N]`.
        counts: Spikes of every recording, int64 `[recordings]`.
    """

    times: np.ndarray
    units: np.ndarray
    counts: np.ndarray


def check_spikes(path: Path, chunk: SpikeChunk, first: int, unit_counts: Sequence[int]) -> None:
    """Checks the rules of spike trains, for all recordings of a chunk at once.

    Args:
        path: Where they come from, for the message.
        chunk: The recordings, units still of any integer type.
        first: Number of the first of them.
        unit_counts: Units of every recording, which must be as many as its times.

    Raises:
        DataError: At the first recording that is empty, has not one unit a time, a unit outside 0 to 699, or times that
            are NaN, infinite, negative, not in seconds or not ascending.
    """
    times, units, counts = chunk

    def refuse(recording: int, what: str, cure: str = "replace the file") -> DataError:
        return DataError(f"{path}: recording {first + recording} {what}; {cure}")

    uneven = np.flatnonzero(counts != np.asarray(unit_counts))
    if len(uneven):
        k = int(uneven[0])
        raise refuse(k, f"has {counts[k]} times but {unit_counts[k]} units")
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise refuse(int(empty[0]), "has no spikes", "take it out of the file, or convert louder sound")
    ends = np.cumsum(counts)

    def at(spikes: np.ndarray) -> tuple[int, int]:
        """First spike that is marked, and its recording."""
        spike = int(np.argmax(spikes))
        return spike, int(np.searchsorted(ends, spike, side="right"))

    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(times) | (times < 0)
        if bad.any():
            spike, k = at(bad)
            raise refuse(k, f"has a spike at {times[spike]:g} s; times must be finite and not negative")
        bad = times > LONGEST_SECONDS
        if bad.any():
            spike, k = at(bad)
            raise refuse(
                k, f"has a spike at {times[spike]:g} s, beyond {LONGEST_SECONDS:g} s", "write times in seconds"
            )
    bad = (units < 0) | (units >= CHANNELS)
    if bad.any():
        spike, k = at(bad)
        raise refuse(k, f"has unit {units[spike]}; units must be 0 to {CHANNELS - 1}")
    bad = np.concatenate([[False], times[1:] < times[:-1]])
    bad[ends[:-1]] = False  # another recording begins
    if bad.any():
        spike, k = at(bad)
        raise refuse(
            k,
            f"has a spike at {times[spike]:g} s after one at {times[spike - 1]:g} s; times must ascend",
            "sort its times together with its units",
        )
