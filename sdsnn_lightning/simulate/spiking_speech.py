"""Embedded stand-ins of the Heidelberg spiking data sets: synthetic voices through the simulated cochlea.

Made by `voices.py` (a formant synthesiser) and `cochlea.py`, in the layout, split and naming of the real sets (Cramer
et al., 2020, arXiv 1910.07407), but far smaller, so that one core makes either in less than 20 seconds:

* `shd`: the ten digits in two languages, 20 classes, 12 speakers, 3 takes: 720 recordings (10,420 in SHD). As there,
  the test set is all of speakers 4 and 5 and 5 % of what the others said; there is no validation file.
* `ssc`: the twelve made-up words of the simulated Speech Commands, 12 speakers, 3 takes: 432 recordings of one second
  (105,829 of 35 words in SSC). No speaker is in two of the three files.

A result on them says how methods compare, no more.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdsnn_lightning.progress import watched
from sdsnn_lightning.simulate.cochlea import spike_trains
from sdsnn_lightning.simulate.once import Stamp, make_once
from sdsnn_lightning.simulate.speech import WORDS
from sdsnn_lightning.simulate.voices import SAMPLE_RATE, draw_speakers, synthesise

VERSION = 1
"""Raised whenever the spikes change, so that an old set is known as such."""
SPEAKERS = 12
TAKES = 3
DIGIT_PACE = 0.8
"""Digits that are read out one by one are spoken slowly."""
SHD_TEST_SPEAKERS = (4, 5)
SHD_TEST_SHARE = 0.05  # of the recordings of the other speakers
SSC_SPEAKERS = {"valid": (0, 1), "test": (2, 3)}
_FRAME = 160  # 10 ms
_MARGIN = 2  # frames kept before and after a word

ENGLISH_DIGITS = {
    "zero": "ziro",
    "one": "wan",
    "two": ".tu",
    "three": "fri",
    "four": "for",
    "five": "faif",
    "six": "si.ks",
    "seven": "sefen",
    "eight": "ei.t",
    "nine": "nain",
}
GERMAN_DIGITS = {
    "null": "nul",
    "eins": "ains",
    "zwei": ".tswai",
    "drei": ".trai",
    "vier": "fia",
    "fuenf": "fyumf",
    "sechs": "ze.ks",
    "sieben": "zimen",
    "acht": "ak.t",
    "neun": "noin",
}
"""Digits as far as `PHONES` can say them, named as in the Spiking Heidelberg Digits."""


def write_simulated_spikes(root: str | Path, prefix: str, seed: int = 0) -> None:
    """Writes a stand-in of SHD or SSC, unless it is there. The folder appears whole or not at all.

    Args:
        root: Folder of the set; `<prefix>_train.h5` and `<prefix>_test.h5` lie in it, and `ssc_valid.h5`. A
            simulated set of another seed or version in it is replaced.
        prefix: `ssc` for words; any other, usually `shd`, for digits in two languages.
        seed: Draws speakers and takes; the same seed gives the same spikes.

    Raises:
        DataError: If `root` holds files that this function did not write, which are left alone, or cannot be written.
    """
    stamp = Stamp("sdsnn_lightning.simulate.spiking_speech", VERSION, {"prefix": prefix, "seed": seed})
    make_once(Path(root), "set of 25 MB", stamp, lambda folder: _write(folder, prefix, seed))


def _write(folder: Path, prefix: str, seed: int) -> None:
    """Says every word, hears it, and writes the files."""
    # The data package imports the data modules, which import this module.
    from sdsnn_lightning.data.spike_files import SpikeSample, write_spike_file

    words = WORDS if prefix == "ssc" else {**ENGLISH_DIGITS, **GERMAN_DIGITS}
    names = sorted(words) if prefix == "ssc" else list(words)  # by the alphabet in SSC, by value in SHD
    samples: dict[str, list[SpikeSample]] = {"train": [], "valid": [], "test": []}
    rng = np.random.default_rng([seed, 3])
    for label, speaker, times, units in _listen(words, names, prefix != "ssc", seed):
        if prefix == "ssc":
            part = next((part for part, chosen in SSC_SPEAKERS.items() if speaker in chosen), "train")
        else:
            part = "test" if speaker in SHD_TEST_SPEAKERS or rng.random() < SHD_TEST_SHARE else "train"
        samples[part].append(SpikeSample(times, units, label, speaker, names[label]))
    for part, chosen in samples.items():
        if chosen:
            order = rng.permutation(len(chosen))  # recordings of one word do not stand together in the real files
            write_spike_file(folder / f"{prefix}_{part}.h5", (chosen[k] for k in order), names)


def _listen(
    words: dict[str, str], names: Sequence[str], cut: bool, seed: int
) -> Iterator[tuple[int, int, NDArray[np.float32], NDArray[np.int16]]]:
    """Says every word and hears it: label, speaker, times and units of every recording, in a fixed order."""
    pace = DIGIT_PACE if cut else 1.0
    voices = [replace(voice, rate=voice.rate * pace) for voice in draw_speakers(SPEAKERS, seed) for _ in range(TAKES)]
    with ThreadPoolExecutor() as pool:
        for label, name in enumerate(watched(names, "Simulating spoken words, once", len(names))):
            sounds = synthesise(words[name], voices, np.random.default_rng([seed, 2, label]))
            pieces = [cut_silence(sound) for sound in sounds] if cut else list(sounds)
            heard = pool.map(lambda sound: spike_trains(sound, SAMPLE_RATE), pieces)
            for number, (times, units) in enumerate(heard):
                if len(times):
                    yield label, number // TAKES, times, units


def cut_silence(sound: NDArray) -> NDArray:
    """Cuts a word out of its recording, as the recordings of SHD are cut.

    Args:
        sound: `[S]`, at 16 kHz, of one word in steady noise.

    Returns:
        The part from the first to the last 10 ms frame that is less than 35 dB below the loudest and 6 dB above the
        quietest, and 20 ms on either side.
    """
    frames = len(sound) // _FRAME
    power = np.square(sound[: frames * _FRAME]).reshape(frames, _FRAME).mean(1)
    loud = np.flatnonzero(power >= max(power.max() * 10**-3.5, power.min() * 10**0.6))
    if not len(loud):
        return sound
    return sound[max(loud[0] - _MARGIN, 0) * _FRAME : (loud[-1] + 1 + _MARGIN) * _FRAME]
