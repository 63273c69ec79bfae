"""A small folder in the layout of Speech Commands."""

from pathlib import Path

import numpy as np
import soundfile

SPEAKERS = ("0ea0e2f4", "026290a7", "00f0204f", "00176480")
"""By the official lists: test, validation, training, training."""


def write_speech_set(root: Path) -> Path:
    """Two words by four speakers, two takes each, and both list files; the second word is a tone."""
    for number, word in enumerate(("bed", "cat")):
        (root / word).mkdir(parents=True)
        for k, speaker in enumerate(SPEAKERS):
            for take in range(2):
                rng = np.random.default_rng(100 * number + 10 * k + take)
                sound = rng.normal(0, 0.1, 12000) + number * np.sin(np.arange(12000)) * 0.5
                soundfile.write(root / word / f"{speaker}_nohash_{take}.wav", sound, 16000)
    (root / "_background_noise_").mkdir()
    for name, speaker in (("validation", SPEAKERS[1]), ("testing", SPEAKERS[0])):
        lines = [f"{word}/{speaker}_nohash_{take}.wav\n" for word in ("bed", "cat") for take in range(2)]
        (root / f"{name}_list.txt").write_text("".join(lines))
    return root
