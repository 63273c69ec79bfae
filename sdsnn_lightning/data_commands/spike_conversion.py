"""Recordings of spoken words to spike trains, in threads."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sdsnn_lightning.cores import read_ahead

if TYPE_CHECKING:  # the data package imports torch, which `sdsnn data --help` need not wait for
    from sdsnn_lightning.data.spike_files import SpikeSample

_AT_ONCE = 32  # recordings that the threads may be ahead


@dataclass
class Tally:
    """What conversion met on its way, to be said once at the end.

    Attributes:
        seconds: Length of every recording.
        spikes: Spikes of every recording that has any.
        silent: Recordings without a spike, which are left out.
        mixed: Number of recordings with more than one channel.
        rates: Number of recordings by their rate in Hz.
    """

    seconds: list[float] = field(default_factory=list)
    spikes: list[int] = field(default_factory=list)
    silent: list[Path] = field(default_factory=list)
    mixed: int = 0
    rates: Counter[int] = field(default_factory=Counter)


def convert(
    recordings: Sequence[tuple[Path, int, int]],
    class_names: Sequence[str],
    sample_rate: int | None,
    workers: int,
    tally: Tally,
) -> Iterator["SpikeSample"]:
    """Turns recordings into spike trains, in order; in threads, as decoder and cochlea let go of the interpreter.

    Args:
        recordings: File, label and speaker of each.
        class_names: Words in index order.
        sample_rate: Rate in Hz that recordings are brought to first; their own where None.
        workers: Number of threads.
        tally: Takes down what is met.

    Yields:
        One sample a recording that has a spike.

    Raises:
        DataError: If a recording cannot be read, or holds no or broken samples.
    """
    from sdsnn_lightning.data.audio import decode, to_mono
    from sdsnn_lightning.data.spike_files import SpikeSample
    from sdsnn_lightning.simulate.cochlea import spike_trains

    spike_trains(np.zeros(1), 16000)  # compiles before the threads start

    def one(path: Path) -> tuple[np.ndarray, np.ndarray, int, int, float]:
        waveform, rate = decode(path)
        mono = to_mono(waveform, rate, sample_rate or rate)
        times, units = spike_trains(mono, sample_rate or rate)
        return times, units, rate, waveform.shape[1], len(waveform) / rate

    results = read_ahead(one, [path for path, _, _ in recordings], _AT_ONCE, workers)
    for (path, label, speaker), (times, units, rate, channels, seconds) in zip(recordings, results, strict=True):
        tally.rates[rate] += 1
        tally.mixed += channels > 1
        tally.seconds.append(seconds)
        if not len(times):
            tally.silent.append(path)
            continue
        tally.spikes.append(len(times))
        yield SpikeSample(times, units, label, speaker, class_names[label])
