"""Log-mel spectrograms of waveforms on the device, at any hop, and SpecAugment on them."""

import math
import warnings
from typing import Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional

from sdsnn_lightning.data.audio import SincResample
from sdsnn_lightning.errors import ConfigError

FrontEnd = Literal["clean", "spikescr"]
Fill = Literal["mean", "floor", "zero"]

FRONT_ENDS: dict[FrontEnd, dict[str, float]] = {
    "clean": {"sample_rate": 16000, "n_fft": 512, "n_mels": 40, "f_min": 20.0},
    "spikescr": {"sample_rate": 8000, "n_fft": 256, "n_mels": 140, "f_min": 50.0, "recorded_rate": 16000},
}
"""What `LogMel` takes for an argument that is not given."""
SPIKESCR_F_MAX = 14000.0
"""Upper end of SpikeSCR's mel filters in Hz, 10 kHz above what its 8 kHz sound holds."""


class LogMel(nn.Module):
    """Log-mel spectrogram in one of two styles: centred Hann STFT, power, mel filters, logarithm.

    `clean` is ours: zeros around the recording, librosa's (Slaney) filters of unit area, `ln(power + eps)`, and a
    normalisation per recording. The frame centred on the end of the recording is left out, so that `S` samples give
    `S // hop` frames and time steps come in round numbers.

    `spikescr` is the front-end of SpikeSCR (Wang et al., 2024, arXiv 2412.12858, as in the authors' code, which uses
    torchaudio), on sound that `SincResample` brings from 16 to 8 kHz: reflection around the recording, HTK filters of
    unit height, `10 log10(max(power, 1e-10))`, no normalisation, all `1 + S // hop` frames. Their filters reach up to
    14 kHz at a sample rate of 8 kHz, so that 53 of 140 are empty and stay at -100 dB; that is done only where
    `allow_above_nyquist` is set. Up to 4 kHz, our default, 7 of 140 are empty, all at low frequencies, where filters
    are narrower than a bin of the 256-point transform.

    Neither style learns or stores anything.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        sample_rate: int | None = None,
        n_fft: int | None = None,
        n_mels: int | None = None,
        f_min: float | None = None,
        f_max: float | None = None,
        style: FrontEnd = "clean",
        allow_above_nyquist: bool = False,
        eps: float | None = None,
        normalise: bool | None = None,
        recorded_rate: int | None = None,
    ) -> None:
        """Creates the transform.

        Args:
            sample_rate: Rate in Hz of the sound that is transformed; 16000 (`clean`) or 8000 (`spikescr`) if None.
            n_fft: Window and transform length in samples; 512 or 256 if None.
            n_mels: Mel bins; 40 or 140 if None.
            f_min: Lower end of the lowest filter in Hz; 20 or 50 if None.
            f_max: Upper end of the highest filter in Hz; half the sample rate if None, or 14000 for `spikescr` with
                `allow_above_nyquist`.
            style: `clean` or `spikescr`.
            allow_above_nyquist: Accept filters above half the sample rate, which are empty.
            eps: Floor of silence in power, for waveforms in [-1, 1]: 1e-6, added before the logarithm, or 1e-10, the
                least value, if None.
            normalise: Subtract from every mel bin its mean over the recording, which removes the microphone and much
                of the voice, then divide by one deviation a recording, which removes the gain. Only `clean` does by
                default.
            recorded_rate: Rate of the waveforms in Hz, resampled to `sample_rate`; the same (`clean`) or 16000
                (`spikescr`) if None.

        Raises:
            ConfigError: If the filters reach above half the sample rate, where they would be constant.
        """
        super().__init__()
        preset = FRONT_ENDS[style]
        rate = int(preset["sample_rate"] if sample_rate is None else sample_rate)
        self.style, self.sample_rate = style, rate
        self.recorded_rate = int(preset.get("recorded_rate", rate) if recorded_rate is None else recorded_rate)
        self.resample = SincResample(self.recorded_rate, rate)
        self.n_fft = int(preset["n_fft"] if n_fft is None else n_fft)
        self.n_mels = int(preset["n_mels"] if n_mels is None else n_mels)
        self.eps = eps if eps is not None else 1e-6 if style == "clean" else 1e-10
        self.normalise = style == "clean" if normalise is None else normalise
        f_min = preset["f_min"] if f_min is None else f_min
        if f_max is None:
            f_max = SPIKESCR_F_MAX if style == "spikescr" and allow_above_nyquist else rate / 2
        if not 0 <= f_min < f_max or (f_max > rate / 2 and not allow_above_nyquist):
            raise ConfigError(
                f"f_min {f_min} and f_max {f_max} Hz must lie within 0 and half of sample_rate {rate}; correct them, "
                "or set allow_above_nyquist: true to have empty filters"
            )
        triangles = _slaney_filters if style == "clean" else _htk_filters
        filters = triangles(rate, self.n_fft, self.n_mels, f_min, f_max)
        empty = int((filters == 0).all(1).sum())
        known = style == "spikescr" and n_mels is None and n_fft is None  # as said above
        if empty and not known and not allow_above_nyquist:
            rank_zero_warn(
                f"{empty} of {self.n_mels} mel filters are narrower than a bin of the spectrum and stay empty; "
                "lower n_mels or raise n_fft to have none"
            )
        self.register_buffer("filters", filters, persistent=False)  # [mels, n_fft/2+1]
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    def frames(self, samples: int, hop: int) -> int:
        """Number of frames of a recording of `samples` samples at `recorded_rate`, one every `hop` at `sample_rate`."""
        return self.resample.length(samples) // hop + (self.style == "spikescr")

    def power(self, waveform: Tensor, hop: int) -> Tensor:
        """Mel power of waveforms `[B, S]` in [-1, 1] at one frame every `hop` samples -> `[B, frames, mels]`."""
        frames = self.frames(waveform.shape[-1], hop)
        pad_mode = "constant" if self.style == "clean" else "reflect"
        sound = self.resample(waveform)
        spectrum = torch.stft(
            sound, self.n_fft, hop, window=self.window, center=True, pad_mode=pad_mode, return_complex=True
        )  # [B, n_fft/2+1, 1 + S // hop]
        power = torch.view_as_real(spectrum[..., :frames]).square().sum(-1)
        return (self.filters @ power).transpose(1, 2)

    def forward(self, waveform: Tensor, hop: int, steps: int | None = None) -> Tensor:
        """Computes the log-mel spectrogram.

        Args:
            waveform: `[B, S]` at `recorded_rate`, int16 or float in [-1, 1].
            hop: Samples between two frames, at `sample_rate`.
            steps: Time steps T. Frames are averaged in power down to T neighbouring groups, so that a coarser view
                covers the same sound; None keeps all frames.

        Returns:
            Float32 `[B, T, mels]`.

        Raises:
            ConfigError: If `steps` is more than the frames there are.
        """
        if not waveform.is_floating_point():
            waveform = waveform.float() / 32768.0
        power = self.power(waveform, hop)
        frames = power.shape[1]
        if steps is not None and steps > frames:
            raise ConfigError(f"steps {steps} is more than the {frames} spectrogram frames; lower steps or hop ({hop})")
        if steps is not None and steps != frames:
            power = functional.adaptive_avg_pool1d(power.transpose(1, 2), steps).transpose(1, 2)
        log_mel = (power + self.eps).log() if self.style == "clean" else 10 * power.clamp_min(self.eps).log10()
        if not self.normalise:
            return log_mel
        centred = log_mel - log_mel.mean(1, keepdim=True)
        return centred / centred.std((1, 2), keepdim=True).clamp_min(1e-3)  # silence stays finite

    def fill(self, log_mel: Tensor, fill: Fill) -> Tensor | float:
        """What `mask_bands` puts in place of the sound.

        Args:
            log_mel: Spectrograms of this front-end `[B, T, mels]`.
            fill: `mean` of every mel bin over the recording; `floor`, the quietest value of the recording; `zero`,
                as SpikeSCR's official code does, which on decibels is louder than any speech.

        Returns:
            A number, or something that broadcasts to `[B, T, mels]`.
        """
        if fill == "zero" or (fill == "mean" and self.normalise):  # normalised bins have mean 0
            return 0.0
        return log_mel.mean(1, keepdim=True) if fill == "mean" else log_mel.amin((1, 2), keepdim=True)


def _slaney_filters(rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Triangular filters on Slaney's scale, of unit area, `[mels, n_fft/2+1]`."""
    import librosa

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")  # said by LogMel where it was not asked for
        return torch.from_numpy(librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max))


def _htk_filters(rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Triangular filters on HTK's scale, of unit height, `[mels, n_fft/2+1]`.

    In float32 as torchaudio computes them: near the ends of a filter its rounding is worth 0.005 dB.
    """
    low, high = (2595.0 * math.log10(1.0 + hertz / 700.0) for hertz in (f_min, f_max))
    edges = 700.0 * (10.0 ** (torch.linspace(low, high, n_mels + 2) / 2595.0) - 1.0)  # Hz
    widths, beyond = edges.diff(), edges - torch.linspace(0, rate // 2, n_fft // 2 + 1)[:, None]
    rising, falling = -beyond[:, :-2] / widths[:-1], beyond[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp_min(0.0).T.contiguous()


def draw_bands(
    batch: int, time: float, mel: float, device: torch.device | None = None, shared_mel: bool = False
) -> Tensor:
    """Draws one time band and one mel band a sample for `mask_bands`, as fractions of either axis.

    SpecAugment (Park et al., 2019, section 2) without warping: width uniform in [0, `time`] or [0, `mel`], start
    uniform where it fits. Fractions, so that one draw masks the same sound in views of different time steps.

    Args:
        batch: Samples B.
        time: Widest time band.
        mel: Widest mel band.
        device: Where to draw.
        shared_mel: Give all samples the same mel band, as SpikeSCR's official code does.

    Returns:
        `[B, 4]`: start and end in time, start and end in mel bins.
    """
    uniform = torch.rand(batch, 4, device=device)
    if shared_mel:
        uniform[:, 1::2] = uniform[:1, 1::2].clone()
    width_time, width_mel = uniform[:, 0] * time, uniform[:, 1] * mel
    start_time, start_mel = uniform[:, 2] * (1 - width_time), uniform[:, 3] * (1 - width_mel)
    return torch.stack([start_time, start_time + width_time, start_mel, start_mel + width_mel], dim=1)


def mask_bands(log_mel: Tensor, bands: Tensor, fill: Tensor | float = 0.0) -> Tensor:
    """Replaces the bands `[B, 4]` of `draw_bands` in spectrograms `[B, T, mels]`.

    Args:
        log_mel: `[B, T, mels]`.
        bands: What `draw_bands` returned.
        fill: What stands in the bands, see `LogMel.fill`; 0 is the mean of normalised spectrograms.

    Returns:
        `[B, T, mels]`.
    """
    _, steps, mels = log_mel.shape
    time = (torch.arange(steps, device=log_mel.device) + 0.5) / steps
    mel = (torch.arange(mels, device=log_mel.device) + 0.5) / mels
    hide_time = (time >= bands[:, 0:1]) & (time < bands[:, 1:2])  # [B, T]
    hide_mel = (mel >= bands[:, 2:3]) & (mel < bands[:, 3:4])  # [B, mels]
    return torch.where(hide_time[:, :, None] | hide_mel[:, None, :], fill, log_mel)
