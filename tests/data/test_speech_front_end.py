import math

import librosa
import numpy as np
import pytest
import torch

from sdsnn_lightning.data.audio import SincResample
from sdsnn_lightning.data.speech_front_end import LogMel, draw_bands, mask_bands
from sdsnn_lightning.errors import ConfigError


@pytest.mark.parametrize(
    ("rate", "n_fft", "hop", "mels", "f_min", "f_max"),
    [(16000, 512, 160, 40, 20.0, None), (16000, 400, 200, 64, 0.0, 7600.0), (8000, 256, 80, 32, 50.0, None)],
)
def test_log_mel_is_librosas(rate, n_fft, hop, mels, f_min, f_max):
    waveform = np.random.default_rng(0).normal(0, 0.1, (2, rate)).astype(np.float32)
    expected = librosa.feature.melspectrogram(
        y=waveform, sr=rate, n_fft=n_fft, hop_length=hop, n_mels=mels, fmin=f_min, fmax=f_max, pad_mode="constant"
    )
    ours = LogMel(rate, n_fft, mels, f_min, f_max, normalise=False)(torch.from_numpy(waveform), hop)
    assert ours.shape == (2, rate // hop, mels)
    expected = np.log(expected + 1e-6).transpose(0, 2, 1)[:, : rate // hop]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4)


def test_fewer_steps_average_the_power_of_neighbours():
    log_mel = LogMel(normalise=False)
    waveform = torch.randn(2, 16000) * 0.1
    power = log_mel.power(waveform, 160)
    expected = (power.unflatten(1, (25, 4)).mean(2) + 1e-6).log()
    torch.testing.assert_close(log_mel(waveform, 160, 25), expected)
    assert log_mel(waveform, 160, 40).shape == (2, 40, 40)
    with pytest.raises(ConfigError, match="101"):
        log_mel(waveform, 160, 101)


def test_normalisation_forgets_gain_and_colour_and_survives_silence():
    waveform = torch.randn(3, 16000) * torch.linspace(0.05, 0.4, 16000)
    log_mel = LogMel(eps=1e-12)
    out = log_mel(waveform, 160)
    torch.testing.assert_close(out.mean(1), torch.zeros(3, 40), atol=1e-5, rtol=0)
    torch.testing.assert_close(log_mel(waveform * 0.1, 160), out, atol=1e-3, rtol=0)
    assert LogMel()(torch.zeros(1, 16000), 160).abs().max() < 1e-2
    int16 = (waveform * 8192).round().clamp(-32768, 32767).to(torch.int16)
    torch.testing.assert_close(log_mel(int16, 160), log_mel(int16.float() / 32768, 160))


def test_filters_above_half_the_rate_are_refused():
    with pytest.raises(ConfigError, match="14000"):
        LogMel(8000, 256, 140, 50.0, 14000.0)


def test_one_draw_of_masks_hides_the_same_sound_at_any_step_count():
    torch.manual_seed(0)
    bands = draw_bands(500, 0.2, 0.3)
    assert bands.min() >= 0
    assert bands.max() <= 1
    fine, coarse = mask_bands(torch.ones(500, 200, 40), bands), mask_bands(torch.ones(500, 50, 40), bands)
    hidden_fine, hidden_coarse = (fine == 0).all(2).float().mean(1), (coarse == 0).all(2).float().mean(1)
    assert (hidden_fine - hidden_coarse).abs().max() <= 1 / 50 + 1 / 200
    assert 0.08 < hidden_fine.mean() < 0.12  # half of the widest
    assert 0.13 < (fine == 0).all(1).float().mean() < 0.17


def htk_filters(rate, n_fft, mels, f_min, f_max):
    """The published formula, one filter and one bin at a time."""

    def mel(hertz):
        return 2595 * np.log10(1 + hertz / 700)

    edges = np.linspace(mel(f_min), mel(f_max), mels + 2)
    edges = 700 * (10 ** (edges / 2595) - 1)  # Hz
    filters = np.zeros((mels, n_fft // 2 + 1))
    for m in range(mels):
        low, centre, high = edges[m : m + 3]
        for k in range(n_fft // 2 + 1):
            hertz = k * rate / n_fft
            filters[m, k] = max(0.0, min((hertz - low) / (centre - low), (high - hertz) / (high - centre)))
    return filters


def test_spikescr_filters_are_htks_and_reach_above_what_the_sound_holds():
    log_mel = LogMel(style="spikescr", allow_above_nyquist=True)
    assert log_mel.sample_rate == 8000
    np.testing.assert_allclose(log_mel.filters.numpy(), htk_filters(8000, 256, 140, 50.0, 14000.0), atol=2e-5)
    empty = (log_mel.filters == 0).all(1)
    assert empty.sum() == 53
    assert empty[87:].all()
    # mel(50 Hz) = 77.75, mel(14 kHz) = 3431.26, so steps of 23.784; filter 19 peaks at mel 553.4, 443.8 Hz. Bin 14 is
    # 437.5 Hz and filter 18 peaks at mel 529.65, 419.9 Hz: (437.5 - 419.9) / (443.8 - 419.9) = 0.74.
    assert log_mel.filters[19, 14].item() == pytest.approx(0.74, abs=0.01)


def test_empty_filters_that_nobody_asked_for_are_said():
    with pytest.warns(UserWarning, match="of 200 mel filters are narrower than a bin"):
        LogMel(n_mels=200)


def test_spikescr_within_nyquist_by_default():
    log_mel = LogMel(style="spikescr")
    assert (log_mel.filters == 0).all(1).sum() == 7
    np.testing.assert_allclose(log_mel.filters.numpy(), htk_filters(8000, 256, 140, 50.0, 4000.0), atol=2e-5)


@pytest.mark.parametrize(("hop", "frames"), [(80, 101), (200, 41), (40, 201), (20, 401)])
def test_spikescr_is_the_power_spectrogram_in_decibels(hop, frames):
    waveform = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    log_mel = LogMel(style="spikescr", allow_above_nyquist=True, recorded_rate=8000)
    ours = log_mel(torch.from_numpy(waveform)[None], hop)[0].numpy()
    padded = np.pad(waveform, 128, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    pieces = np.stack([padded[t * hop : t * hop + 256] * window for t in range(frames)])
    power = np.abs(np.fft.rfft(pieces)) ** 2 @ htk_filters(8000, 256, 140, 50.0, 14000.0).T
    assert ours.shape == (frames, 140) == (log_mel.frames(8000, hop), 140)
    np.testing.assert_allclose(ours, 10 * np.log10(np.maximum(power, 1e-10)), atol=2e-3)
    assert (ours[:, 87:] == -100).all()
    assert (log_mel(torch.zeros(1, 8000), hop) == -100).all()


def test_spikescr_halves_the_rate_as_the_official_code_does():
    """A sinc cut off at 0.99 of 4 kHz, under a squared cosine of six zero crossings, centred on every second sample."""
    waveform = np.random.default_rng(0).normal(0, 0.1, 16001).astype(np.float32)
    offset = (np.arange(-14, 15) / 2) * 0.99  # in zero crossings of the output's sinc
    kernel = np.sinc(offset) * np.cos(np.pi * np.clip(offset, -6, 6) / 12) ** 2 * 0.99 / 2
    official = np.convolve(waveform, kernel, mode="same")[::2]
    resample = SincResample(16000, 8000)
    ours = resample(torch.from_numpy(waveform)[None])[0]
    assert len(ours) == resample.length(16001) == 8001
    np.testing.assert_allclose(ours.numpy(), official, atol=1e-6)
    log_mel, at_8000 = (LogMel(style="spikescr", recorded_rate=rate) for rate in (16000, 8000))
    assert log_mel.frames(16000, 80) == 101
    whole = torch.from_numpy(waveform[:16000])[None]
    assert torch.equal(log_mel(whole, 80), at_8000(resample(whole), 80))


@pytest.mark.parametrize(("rate", "new_rate"), [(16000, 8000), (8000, 16000), (44100, 16000), (16000, 16000)])
def test_resampling_keeps_what_both_rates_hold(rate, new_rate):
    def tone(hertz, rate):
        return torch.sin(2 * math.pi * hertz * torch.arange(rate, dtype=torch.float64) / rate).float()[None]

    resample = SincResample(rate, new_rate)
    for hertz in (100, 1000, 3000):
        ours = resample(tone(hertz, rate))
        assert ours.shape == (1, new_rate)
        error = (ours - tone(hertz, new_rate))[:, 50:-50].abs().max()
        assert error < 0.02  # the short window lets the pass band ripple
    gone = resample(tone(6000, rate))[:, 50:-50].abs().max()
    assert (gone < 0.02) == (new_rate == 8000) or rate == 8000


def test_one_mel_band_for_the_whole_batch():
    torch.manual_seed(0)
    bands = draw_bands(300, 25 / 101, 10 / 140, shared_mel=True)
    masked = mask_bands(torch.ones(300, 101, 140), bands)
    assert (bands[:, 2:] == bands[0, 2:]).all()
    assert len(bands[:, 0].unique()) == 300
    widths = (masked == 0).all(2).sum(1)  # frames hidden in each sample
    assert widths.max() == 25
    assert widths.min() == 0
    mels = [(mask_bands(torch.ones(1, 101, 140), draw_bands(1, 0.0, 10 / 140)) == 0).all(1).sum() for _ in range(300)]
    assert max(mels) == 10
    assert min(mels) == 0


def test_what_fills_the_bands():
    log_mel = LogMel(style="spikescr", allow_above_nyquist=True, recorded_rate=8000)
    spectrum = log_mel(torch.randn(2, 8000) * 0.1, 80)
    bands = torch.tensor([[0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])  # half the time; all mel bins
    filled = mask_bands(spectrum, bands, log_mel.fill(spectrum, "mean"))
    torch.testing.assert_close(filled[0, 10], spectrum[0].mean(0))
    torch.testing.assert_close(filled[1, 7], spectrum[1].mean(0))
    assert torch.equal(filled[0, 50:], spectrum[0, 50:])
    assert (mask_bands(spectrum, bands, log_mel.fill(spectrum, "floor"))[0, :50] == -100).all()
    assert (mask_bands(spectrum, bands, log_mel.fill(spectrum, "zero"))[0, :50] == 0).all()
    assert LogMel().fill(spectrum, "mean") == 0
