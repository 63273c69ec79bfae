"""Audio representations: waveforms from files, log-mel spectrograms and their augmentation on the device."""

from math import gcd
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdsnn_lightning.errors import ConfigError, DataError


def load_waveform(path: str | Path, sample_rate: int, samples: int | None = None) -> np.ndarray:
    """Reads one recording as mono at the wanted rate.

    Args:
        path: A file libsndfile reads (wav, flac, ogg, ...), any rate, any number of channels.
        sample_rate: Wanted rate in Hz. Other rates are resampled by a polyphase filter.
        samples: Wanted length; longer recordings are cut at the end, shorter ones are padded with silence.

    Returns:
        Float32 `[S]` in [-1, 1].

    Raises:
        DataError: If the file cannot be decoded or holds no sample.
    """
    import soundfile

    try:
        waveform, file_rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"{path} cannot be read as audio ({error}); fetch it again or delete it") from None
    if len(waveform) == 0:
        raise DataError(f"{path} holds no audio samples; fetch it again or delete it")
    mono = waveform.mean(axis=1)
    if file_rate != sample_rate:
        from scipy.signal import resample_poly

        divisor = gcd(sample_rate, file_rate)
        mono = resample_poly(mono, sample_rate // divisor, file_rate // divisor).astype(np.float32)
    if samples is not None:
        mono = np.pad(mono[:samples], (0, max(0, samples - len(mono))))
    return mono


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Quantises float `[S]` in [-1, 1] to int16; exact for what was read from 16-bit PCM."""
    return np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)


class LogMel(nn.Module):
    """Log-mel spectrogram: centred Hann STFT, power, librosa's (Slaney) mel filters, natural logarithm.

    Before the logarithm it is `librosa.feature.melspectrogram(pad_mode="constant")`, without the last frame, which is
    centred on the end of the recording: `S` samples give `S // hop` frames, so that time steps come in round numbers.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 512,
        hop: int = 160,
        n_mels: int = 40,
        f_min: float = 20.0,
        f_max: float | None = None,
        eps: float = 1e-6,
        normalise: bool = True,
    ) -> None:
        """Creates the transform.

        Args:
            sample_rate: Rate of the waveforms in Hz.
            n_fft: Window and transform length in samples.
            hop: Samples between two frames.
            n_mels: Mel bins.
            f_min: Lower end of the lowest filter in Hz.
            f_max: Upper end of the highest filter in Hz; half the sample rate if None.
            eps: Added to the mel power before the logarithm: the floor of silence, for waveforms in [-1, 1].
            normalise: Subtract from every mel bin its mean over the recording, which removes the microphone and much
                of the voice, then divide by one deviation a recording, which removes the gain. Nothing to fit or store.

        Raises:
            ConfigError: If the filters reach above half the sample rate, where they would be constant.
        """
        super().__init__()
        import librosa

        f_max = sample_rate / 2 if f_max is None else f_max
        if not 0 <= f_min < f_max <= sample_rate / 2:
            raise ConfigError(
                f"f_min {f_min} and f_max {f_max} Hz must lie within 0 and half of sample_rate {sample_rate}"
            )
        self.n_fft, self.hop, self.n_mels, self.eps, self.normalise = n_fft, hop, n_mels, eps, normalise
        filters = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)  # [mels, n_fft/2+1]
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def power(self, waveform: Tensor) -> Tensor:
        """Mel power of waveforms `[B, S]` in [-1, 1] -> `[B, S // hop, mels]`."""
        spectrum = torch.stft(
            waveform, self.n_fft, self.hop, window=self.window, center=True, pad_mode="constant", return_complex=True
        )  # [B, n_fft/2+1, 1 + S // hop]
        power = torch.view_as_real(spectrum[..., : waveform.shape[-1] // self.hop]).square().sum(-1)
        return (self.filters @ power).transpose(1, 2)

    def forward(self, waveform: Tensor, steps: int | None = None) -> Tensor:
        """Computes the normalised log-mel spectrogram.

        Args:
            waveform: `[B, S]`, int16 or float in [-1, 1].
            steps: Time steps T. Frames are averaged in power down to T neighbouring groups, so that a coarser view
                covers the same sound; None keeps all `S // hop` frames.

        Returns:
            Float32 `[B, T, mels]`.

        Raises:
            ConfigError: If `steps` is more than the frames there are.
        """
        if not waveform.is_floating_point():
            waveform = waveform.float() / 32768.0
        power = self.power(waveform)
        frames = power.shape[1]
        if steps is not None and steps > frames:
            raise ConfigError(
                f"steps {steps} is more than the {frames} spectrogram frames; lower steps or hop ({self.hop})"
            )
        if steps is not None and steps != frames:
            power = functional.adaptive_avg_pool1d(power.transpose(1, 2), steps).transpose(1, 2)
        log_mel = (power + self.eps).log()
        if not self.normalise:
            return log_mel
        centred = log_mel - log_mel.mean(1, keepdim=True)
        return centred / centred.std((1, 2), keepdim=True).clamp_min(1e-3)  # silence stays finite


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


def draw_bands(batch: int, time: float, mel: float, device: torch.device | None = None) -> Tensor:
    """Draws one time band and one mel band a sample for `mask_bands`, as fractions of either axis.

    SpecAugment (Park et al., 2019, section 2) without warping: width uniform in [0, `time`] or [0, `mel`], start
    uniform where it fits. Fractions, so that one draw masks the same sound in views of different time steps.

    Returns:
        `[B, 4]`: start and end in time, start and end in mel bins.
    """
    uniform = torch.rand(batch, 4, device=device)
    width_time, width_mel = uniform[:, 0] * time, uniform[:, 1] * mel
    start_time, start_mel = uniform[:, 2] * (1 - width_time), uniform[:, 3] * (1 - width_mel)
    return torch.stack([start_time, start_time + width_time, start_mel, start_mel + width_mel], dim=1)


def mask_bands(log_mel: Tensor, bands: Tensor) -> Tensor:
    """Sets the bands `[B, 4]` of `draw_bands` to 0, the mean of normalised spectrograms `[B, T, mels]`."""
    _, steps, mels = log_mel.shape
    time = (torch.arange(steps, device=log_mel.device) + 0.5) / steps
    mel = (torch.arange(mels, device=log_mel.device) + 0.5) / mels
    hide_time = (time >= bands[:, 0:1]) & (time < bands[:, 1:2])  # [B, T]
    hide_mel = (mel >= bands[:, 2:3]) & (mel < bands[:, 3:4])  # [B, mels]
    return log_mel.masked_fill(hide_time[:, :, None] | hide_mel[:, None, :], 0.0)
