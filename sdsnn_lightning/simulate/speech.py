"""A simulated keyword set: twelve made-up words in the voices of twelve speakers, in the layout of Speech Commands.

It stands in for Speech Commands where that set is absent; a result on it says how methods compare, no more.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdsnn_lightning.progress import watched
from sdsnn_lightning.simulate.once import Stamp, make_once
from sdsnn_lightning.simulate.voices import SAMPLE_RATE, draw_speakers, synthesise

VERSION = 2
"""Raised whenever the set changes, so that an old one is known as such."""
SPEAKERS = 12
TAKES = 4
NOISE_SECONDS = 20

WORDS = {
    "nolu": "nolu",
    "sema": "sema",
    "fira": "fira",
    "taki": ".ta.ki",
    "wone": "wone",
    "yusa": "yusa",
    "zimo": "zimo",
    "keto": ".ke.to",
    "lasi": "lasi",
    "mawu": "mawu",
    "rofe": "rofe",
    "siti": "si.ti",
}
"""Phones by word: two syllables each, so that no single moment tells all words apart."""


def background_noise(rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Makes three long noises for `_background_noise_`: white, pink (power falls as 1/f), and the hum of a machine.

    Args:
        rng: Draws them.

    Returns:
        `[NOISE_SECONDS * SAMPLE_RATE]` in [-1, 1] at an rms of 0.1, by name.
    """
    samples = NOISE_SECONDS * SAMPLE_RATE
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    white = np.fft.rfft(rng.normal(0, 1, samples))
    pink = np.fft.rfft(rng.normal(0, 1, samples)) / np.sqrt(np.maximum(frequency, 20.0))
    turns = 47 * np.arange(samples) / SAMPLE_RATE + rng.normal(0, 0.003, samples).cumsum()
    hum = sum(np.sin(2 * np.pi * k * turns + rng.uniform(0, 2 * np.pi)) / k for k in range(1, 12))
    noises = {"white_noise": np.fft.irfft(white), "pink_noise": np.fft.irfft(pink), "machine_hum": np.asarray(hum)}
    return {name: np.clip(0.1 * noise / noise.std(), -1, 1).astype(np.float32) for name, noise in noises.items()}


def write_simulated_commands(root: str | Path, seed: int = 0) -> Path:
    """Writes the simulated set in the layout of Speech Commands, unless it is there: 12 words x 12 speakers x 4 takes.

    Validation and test hold two speakers each that training does not. `_background_noise_` holds three noises. The
    folder appears whole or not at all.

    Args:
        root: Folder of the set. A simulated set of another seed or version in it is replaced.
        seed: Draws speakers and takes; the same seed gives the same files.

    Returns:
        `root`.

    Raises:
        DataError: If `root` holds files that this function did not write, which are left alone, or cannot be written.
    """
    stamp = Stamp("sdsnn_lightning.simulate.speech", VERSION, {"seed": seed})
    return make_once(Path(root), "set of 20 MB", stamp, lambda folder: _write(folder, seed))


def _write(folder: Path, seed: int) -> None:
    """Says and writes every word."""
    speakers = draw_speakers(SPEAKERS, seed)
    parts = {"validation_list.txt": speakers[0:2], "testing_list.txt": speakers[2:4]}
    words = watched(sorted(WORDS.items()), "Simulating spoken words, once", len(WORDS))
    for number, (word, phones) in enumerate(words):
        (folder / word).mkdir()
        voices = [speaker for speaker in speakers for _ in range(TAKES)]
        waveforms = synthesise(phones, voices, np.random.default_rng([seed, 2, number]))
        for k, (speaker, waveform) in enumerate(zip(voices, waveforms, strict=True)):
            _write_wav(folder / word / f"{speaker.name}_nohash_{k % TAKES}.wav", waveform)
    (folder / "_background_noise_").mkdir()
    for name, noise in background_noise(np.random.default_rng([seed, 3])).items():
        _write_wav(folder / "_background_noise_" / f"{name}.wav", noise)
    for name, chosen in parts.items():
        lines = (f"{w}/{s.name}_nohash_{k}.wav\n" for w in sorted(WORDS) for s in chosen for k in range(TAKES))
        (folder / name).write_text("".join(lines))


def _write_wav(path: Path, waveform: NDArray[np.float32]) -> None:
    """Writes 16-bit sound. By Python, as the sound library does not say that a disk is full."""
    import soundfile

    content = BytesIO()
    soundfile.write(content, waveform, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    path.write_bytes(content.getvalue())
