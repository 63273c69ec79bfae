"""A source-filter synthesiser that says made-up words of one second in drawn voices.

Source-filter model (Fant, 1960; Klatt, 1980): a glottal pulse train, or noise, through formant resonators. A word is a
row of phones; formant frequencies, voicing and loudness glide from phone to phone. A speaker is a pitch, a vocal-tract
length that scales all formants, a rate, and a breathiness; a take varies all of them a little. The filter runs in the
frequency domain, frame by frame with overlapping windows, so that all recordings of a word are made at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16000
SAMPLES = 16000
_HOP, _WINDOW = 80, 320  # 5 and 20 ms: formants glide, and pitch harmonics stay apart
_FRAMES = SAMPLES // _HOP
_PHONE_SECONDS = 0.13  # a phone of length 1, at rate 1


@dataclass(frozen=True)
class Phone:
    """One speech sound of an adult male voice.

    Attributes:
        formants: First three resonances in Hz.
        voicing: Share of the glottal source; the rest is noise.
        level: Loudness in dB.
        length: Relative duration.
    """

    formants: tuple[float, float, float]
    voicing: float
    level: float
    length: float


# Vowel formants after Peterson and Barney, 1952, table II (men); consonants are rough.
PHONES = {
    "i": Phone((270, 2290, 3010), 1.0, 0, 1.0),
    "e": Phone((530, 1840, 2480), 1.0, 0, 1.0),
    "a": Phone((730, 1090, 2440), 1.0, 0, 1.1),
    "o": Phone((570, 840, 2410), 1.0, 0, 1.0),
    "u": Phone((300, 870, 2240), 1.0, 0, 1.0),
    "m": Phone((250, 1100, 2200), 1.0, -12, 0.6),
    "n": Phone((250, 1700, 2600), 1.0, -12, 0.6),
    "l": Phone((360, 1300, 2700), 1.0, -8, 0.5),
    "r": Phone((420, 1300, 1600), 1.0, -6, 0.5),
    "y": Phone((260, 2100, 3000), 1.0, -8, 0.4),
    "w": Phone((290, 610, 2150), 1.0, -8, 0.4),
    "s": Phone((4800, 6000, 7200), 0.0, -14, 0.9),
    "f": Phone((1400, 3000, 7000), 0.0, -26, 0.8),
    "z": Phone((260, 4600, 6000), 0.5, -12, 0.8),
    ".": Phone((500, 1500, 2500), 0.3, -55, 0.4),  # closure of a stop
    "t": Phone((1800, 3000, 4200), 0.0, -14, 0.25),  # burst
    "k": Phone((1400, 1900, 2700), 0.0, -14, 0.3),
}


@dataclass(frozen=True)
class Speaker:
    """A voice.

    Attributes:
        name: Eight hexadecimal digits, as in Speech Commands.
        pitch: Mean fundamental frequency in Hz.
        tract: Factor on all formants: about 1 for men, 1.17 for women, up to 1.3 for children.
        rate: Factor on the speed.
        breath: Noise in voiced sounds, share of the amplitude.
    """

    name: str
    pitch: float
    tract: float
    rate: float
    breath: float


def draw_speakers(number: int, seed: int) -> list[Speaker]:
    """Draws voices; men, women and children by turns, pitch and tract length going together as they do."""
    rng = np.random.default_rng([seed, 1])
    speakers = []
    for k in range(number):
        pitch, tract = ((115, 1.0), (205, 1.15), (265, 1.25))[k % 3]
        speakers.append(
            Speaker(
                name=f"{rng.integers(2**32):08x}",
                pitch=pitch * rng.uniform(0.85, 1.2),
                tract=tract * rng.uniform(0.95, 1.06),
                rate=rng.uniform(0.85, 1.2),
                breath=rng.uniform(0.02, 0.15),
            )
        )
    return speakers


def synthesise(phones: str, speakers: list[Speaker], rng: np.random.Generator) -> NDArray[np.float32]:
    """Says one word, once by every entry of `speakers`.

    Args:
        phones: Names of `PHONES`, one character each.
        speakers: Voices `[N]`; name one several times for several takes.
        rng: Draws what differs between takes.

    Returns:
        `[N, S]` in [-1, 1], 16 kHz, one second.
    """
    number = len(speakers)
    pitch, tract, rate, breath = (
        np.array([getattr(s, name) for s in speakers])[:, None] for name in ("pitch", "tract", "rate", "breath")
    )
    # Phone k of a recording lasts from frame edges[k] to edges[k + 1].
    lengths = np.array([PHONES[p].length for p in phones]) * rng.uniform(0.85, 1.15, (number, len(phones)))
    lengths *= _PHONE_SECONDS * SAMPLE_RATE / _HOP / rate
    edges = np.pad(lengths.cumsum(1), ((0, 0), (1, 0)))
    edges += (_FRAMES - edges[:, -1:]) * rng.uniform(0.2, 0.8, (number, 1))  # [N, phones + 1]
    frames = np.arange(_FRAMES)
    phone = (frames >= edges[:, 1:-1, None]).sum(1)  # [N, frames], index into phones

    table = np.array([(*PHONES[p].formants, PHONES[p].voicing, PHONES[p].level) for p in phones])[None]
    table = np.repeat(table, number, axis=0)  # [N, phones, 5]
    table[..., :3] *= tract[..., None] * rng.normal(1, 0.03, (number, len(phones), 3))
    tracks = _smooth(np.take_along_axis(table, phone[..., None], axis=1), 11)  # held, then coarticulated
    spoken = (frames >= edges[:, :1]) & (frames < edges[:, -1:])
    gain = 10 ** (tracks[..., 4] / 20) * _smooth(spoken[..., None].astype(float), 7)[..., 0]  # [N, frames]

    voiced, noise = _sources(pitch * rng.normal(1, 0.05, (number, 1)), rng)
    voicing = np.repeat(tracks[..., 3], _HOP, axis=1)
    source = voiced * voicing + noise * np.maximum(1 - voicing, breath)
    waveform = _resonate(source, tracks[..., :3]) * np.repeat(gain, _HOP, axis=1)
    waveform *= rng.uniform(0.1, 0.6, (number, 1)) / np.abs(waveform).max(1, keepdims=True)
    waveform += rng.normal(0, 1, waveform.shape) * 10 ** rng.uniform(-3.5, -2.3, (number, 1))  # the room
    return np.clip(waveform, -1, 1).astype(np.float32)


def _smooth(tracks: NDArray, frames: int) -> NDArray:
    """Averages tracks `[N, frames, C]` over time by a Hann window of an odd number of frames."""
    kernel = np.hanning(frames + 2)[1:-1]
    padded = np.pad(tracks, ((0, 0), (frames // 2, frames // 2), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, frames, axis=1)  # [N, frames, C, taps]
    return windows @ (kernel / kernel.sum())


def _sources(pitch: NDArray, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Glottal pulses of falling pitch `[N, 1]` in Hz, 6 dB an octave down, and white noise; both `[N, S]`, rms 1."""
    number = len(pitch)
    wobble = 1 + 0.03 * np.sin(2 * np.pi * (5 * np.arange(SAMPLES) / SAMPLE_RATE + rng.random((number, 1))))
    f0 = pitch * np.linspace(1.12, 0.85, SAMPLES) * wobble
    pulses = np.diff(np.floor(f0.cumsum(1) / SAMPLE_RATE), axis=1, prepend=0)
    # Glottal flow falls by 12 dB an octave, radiation at the lips gives 6 back.
    frequency = np.fft.rfftfreq(SAMPLES, 1 / SAMPLE_RATE)
    voiced = np.fft.irfft(np.fft.rfft(pulses) * (frequency > 40) / (1 + frequency / 200), n=SAMPLES)
    return voiced / voiced.std(1, keepdims=True), rng.normal(0, 1, (number, SAMPLES))


def _resonate(source: NDArray, formants: NDArray) -> NDArray:
    """Filters `[N, S]` by parallel resonances gliding as `[N, frames, 3]` in Hz: windows, spectra, overlap and add."""
    half = _WINDOW // 2
    window = np.hanning(_WINDOW + 1)[:-1]
    padded = np.pad(source, ((0, 0), (half, half)))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW, axis=1)[:, : _FRAMES * _HOP : _HOP]
    frequency = np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE)
    response = np.zeros((*formants.shape[:2], len(frequency)))
    for k, level in enumerate((1.0, 0.7, 0.4)):
        centre = formants[..., k, None]
        width = 60 + 0.06 * centre  # Hz; wider where higher, as in the vocal tract
        response += level / np.sqrt(1 + ((frequency**2 - centre**2) / (width * frequency + 1e-3)) ** 2)
    pieces = np.fft.irfft(np.fft.rfft(pieces * window) * response, n=_WINDOW)
    out = np.zeros_like(padded)
    for part in range(_WINDOW // _HOP):  # pieces that do not overlap are added at once
        chosen = pieces[:, part :: _WINDOW // _HOP].reshape(len(source), -1)
        out[:, part * _HOP : part * _HOP + chosen.shape[1]] += chosen
    return out[:, half : half + SAMPLES]
