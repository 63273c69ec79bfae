"""Sound: waveforms from files, and the augmentation of waveforms on the device."""

import math
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdsnn_lightning.errors import DataError

LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000
"""Sample rates in Hz that a recording may have; a header that says otherwise is damaged."""


def decode(path: str | Path) -> tuple[np.ndarray, int]:
    """Reads one recording as it is.

    Args:
        path: A file libsndfile reads (wav, flac, ogg, ...), any rate, any number of channels.

    Returns:
        Float32 `[S, channels]` in [-1, 1], and the file's rate in Hz.

    Raises:
        DataError: If the file cannot be decoded or breaks off, has a sample rate that no sound has, holds no sample, or
            samples that are NaN or infinite.
    """
    import soundfile

    try:
        read_header(path)
        waveform, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"{path} cannot be read as audio ({error}); fetch it again or delete it") from None
    check_samples(path, waveform)
    return waveform, rate


def read_header(path: str | Path) -> Any:
    """Reads and checks what the header of a recording says, without decoding it.

    Args:
        path: A file libsndfile reads.

    Returns:
        What `soundfile.info` says: `frames`, `samplerate`, `channels`.

    Raises:
        DataError: If it holds no sample, breaks off, or has a sample rate that no sound has.
        soundfile.SoundFileError: If libsndfile cannot read it.
    """
    import soundfile

    facts = soundfile.info(str(path))
    if not facts.frames:
        raise DataError(f"{path} holds no audio samples; fetch it again or delete it")
    if not LOWEST_RATE <= facts.samplerate <= HIGHEST_RATE:
        raise DataError(f"{path} says that it has {facts.samplerate} samples a second; fetch it again or delete it")
    missing = _missing_bytes(Path(path))
    if missing > 0:  # libsndfile reads what there is and says nothing
        raise DataError(f"{path} breaks off: {missing} bytes of its sound are missing; fetch it again or delete it")
    return facts


def check_samples(path: str | Path, waveform: np.ndarray) -> None:
    """Checks decoded samples: files of floats can hold anything.

    Raises:
        DataError: If some are NaN or infinite.
    """
    if not np.isfinite(waveform).all():
        raise DataError(f"{path} holds samples that are NaN or infinite; fetch it again or delete it")


def _missing_bytes(path: Path) -> int:
    """Bytes that a file of RIFF, RF64, W64 or AIFF lacks, by its header; 0 for other formats and unknown lengths."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(28).ljust(28, b"\0")
        if head[:4] == b"FORM":
            return int.from_bytes(head[4:8], "big") + 8 - size
        if head[:4] == b"RF64" and head[12:16] == b"ds64":
            return int.from_bytes(head[20:28], "little") + 8 - size
        if head[:4] == b"riff":  # W64, whose length counts its header
            return int.from_bytes(head[16:24], "little") - size
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return 0
        file.seek(12)
        while len(chunk := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            if name == b"data":  # a writer into a pipe does not know the length, and gives none or the highest
                known = 0 < length < 0x7FFFF000
                return length - (size - file.tell()) if known else 0
            file.seek(length + length % 2, 1)
    return 0


def to_mono(waveform: np.ndarray, file_rate: int, sample_rate: int, samples: int | None = None) -> np.ndarray:
    """Averages the channels of `[S, channels]`, resamples, and cuts or pads.

    Args:
        waveform: What `decode` returned.
        file_rate: Its rate in Hz.
        sample_rate: Wanted rate in Hz. Other rates are resampled by a polyphase filter (SciPy's, Kaiser window).
        samples: Wanted length; longer recordings are cut at the end, shorter ones are padded with silence.

    Returns:
        Float32 `[S]`.
    """
    mono = waveform.mean(axis=1)
    if file_rate != sample_rate:
        from scipy.signal import resample_poly

        divisor = math.gcd(sample_rate, file_rate)
        mono = resample_poly(mono, sample_rate // divisor, file_rate // divisor).astype(np.float32)
    if samples is not None:
        mono = np.pad(mono[:samples], (0, max(0, samples - len(mono))))
    return mono


def decode_all(
    root: Path, files: Iterable[str], sample_rate: int, converted: list[str], samples: int | None = None
) -> Iterator[np.ndarray]:
    """Reads recordings one by one, as mono at the wanted rate.

    Args:
        root: Their folder.
        files: Paths below it.
        sample_rate: Wanted rate in Hz.
        converted: Gets a note on every recording that was stereo or of another rate.
        samples: Wanted length, see `to_mono`.

    Yields:
        int16 `[S]`.

    Raises:
        DataError: At the first broken recording (see `decode`).
    """
    for file in files:
        sound, rate = decode(root / file)
        if rate != sample_rate or sound.shape[1] > 1:
            converted.append(f"{file} with {sound.shape[1]} x {rate} Hz")
        yield to_int16(to_mono(sound, rate, sample_rate, samples))


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Quantises float `[S]` in [-1, 1] to int16; exact for what was read from 16-bit PCM."""
    return np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)


class SincResample(nn.Module):
    """Resamples waveforms on the device as torchaudio's `Resample` does by default.

    Each output sample is a sum over the input under a sinc, cut off at 0.99 of the lower of both half rates and tapered
    by a squared cosine to six zero crossings (J. O. Smith, "Digital Audio Resampling"). SpikeSCR's official front-end
    has this one; it lets a little of what lies above the new half rate through.
    """

    kernels: Tensor

    def __init__(self, rate: int, new_rate: int, crossings: int = 6, cutoff: float = 0.99) -> None:
        """Creates the transform.

        Args:
            rate: Rate of the waveforms in Hz.
            new_rate: Rate wanted in Hz.
            crossings: Zero crossings of the sinc to either side.
            cutoff: End of the pass band, in units of the lower half rate.
        """
        super().__init__()
        divisor = math.gcd(rate, new_rate)
        self.stride, self.phases = rate // divisor, new_rate // divisor
        band = min(self.stride, self.phases) * cutoff  # samples of the sinc in one `stride` of input
        self.reach = math.ceil(crossings * self.stride / band)
        taps = torch.arange(-self.reach, self.reach + self.stride, dtype=torch.float64) / self.stride
        phase = torch.arange(self.phases, dtype=torch.float64)[:, None] / self.phases
        offset = ((taps - phase) * band).clamp(-crossings, crossings)
        kernels = torch.sinc(offset) * torch.cos(math.pi * offset / (2 * crossings)).square() * band / self.stride
        self.register_buffer("kernels", kernels.float()[:, None], persistent=False)  # [phases, 1, taps]

    def length(self, samples: int) -> int:
        """Samples of the output for `samples` of the input."""
        return math.ceil(samples * self.phases / self.stride)

    def forward(self, waveform: Tensor) -> Tensor:
        """Resamples `[B, S]`, float32, to `[B, length(S)]`; itself where both rates are equal."""
        if self.phases == self.stride:
            return waveform
        padded = functional.pad(waveform, (self.reach, self.reach + self.stride))
        phases = functional.conv1d(padded[:, None], self.kernels, stride=self.stride)  # [B, phases, S / stride]
        return phases.transpose(1, 2).flatten(1)[:, : self.length(waveform.shape[-1])]


def random_shift(waveform: Tensor, most: int) -> Tensor:
    """Shifts every waveform `[B, S]` in time by its own uniform offset of at most `most` samples; fills with zeros."""
    batch, samples = waveform.shape
    offset = torch.randint(-most, most + 1, (batch, 1), device=waveform.device)
    source = torch.arange(samples, device=waveform.device) - offset  # [B, S]
    shifted = waveform.gather(1, source.clamp(0, samples - 1))
    return shifted * ((source >= 0) & (source < samples))


def random_gain_noise(waveform: Tensor, gain_db: float, snr_db: tuple[float, float]) -> Tensor:
    """Scales every waveform `[B, S]` by up to +-`gain_db` dB and adds white noise at a uniform SNR in `snr_db` dB."""
    uniform = torch.rand(2, len(waveform), 1, device=waveform.device, dtype=waveform.dtype)
    gain = 10 ** ((2 * uniform[0] - 1) * gain_db / 20)
    snr = snr_db[0] + uniform[1] * (snr_db[1] - snr_db[0])
    rms = waveform.square().mean(1, keepdim=True).sqrt()
    return gain * (waveform + torch.randn_like(waveform) * rms * 10 ** (-snr / 20))
