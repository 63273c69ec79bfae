import librosa
import numpy as np
import pytest
import soundfile
import torch

from sdsnn_lightning.data.audio import (
    LogMel,
    draw_bands,
    load_waveform,
    mask_bands,
    random_gain_noise,
    random_shift,
    to_int16,
)
from sdsnn_lightning.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("rate", "n_fft", "hop", "mels", "f_min", "f_max"),
    [(16000, 512, 160, 40, 20.0, None), (16000, 400, 200, 64, 0.0, 7600.0), (8000, 256, 80, 32, 50.0, None)],
)
def test_log_mel_is_librosas(rate, n_fft, hop, mels, f_min, f_max):
    waveform = np.random.default_rng(0).normal(0, 0.1, (2, rate)).astype(np.float32)
    expected = librosa.feature.melspectrogram(
        y=waveform, sr=rate, n_fft=n_fft, hop_length=hop, n_mels=mels, fmin=f_min, fmax=f_max, pad_mode="constant"
    )
    ours = LogMel(rate, n_fft, hop, mels, f_min, f_max, normalise=False)(torch.from_numpy(waveform))
    assert ours.shape == (2, rate // hop, mels)
    expected = np.log(expected + 1e-6).transpose(0, 2, 1)[:, : rate // hop]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4)


def test_fewer_steps_average_the_power_of_neighbours():
    log_mel = LogMel(normalise=False)
    waveform = torch.randn(2, 16000) * 0.1
    power = log_mel.power(waveform)
    expected = (power.unflatten(1, (25, 4)).mean(2) + 1e-6).log()
    torch.testing.assert_close(log_mel(waveform, 25), expected)
    assert log_mel(waveform, 40).shape == (2, 40, 40)
    with pytest.raises(ConfigError, match="101"):
        log_mel(waveform, 101)


def test_normalisation_forgets_gain_and_colour_and_survives_silence():
    waveform = torch.randn(3, 16000) * torch.linspace(0.05, 0.4, 16000)
    log_mel = LogMel(eps=1e-12)
    out = log_mel(waveform)
    torch.testing.assert_close(out.mean(1), torch.zeros(3, 40), atol=1e-5, rtol=0)
    torch.testing.assert_close(log_mel(waveform * 0.1), out, atol=1e-3, rtol=0)
    assert LogMel()(torch.zeros(1, 16000)).abs().max() < 1e-2
    int16 = (waveform * 8192).round().clamp(-32768, 32767).to(torch.int16)
    torch.testing.assert_close(log_mel(int16), log_mel(int16.float() / 32768))


def test_filters_above_half_the_rate_are_refused():
    with pytest.raises(ConfigError, match="14000"):
        LogMel(8000, 256, 80, 140, 50.0, 14000.0)


def test_stereo_of_another_rate_becomes_mono_of_ours(tmp_path):
    seconds = np.arange(44100) / 44100
    left = 0.5 * np.sin(2 * np.pi * 440 * seconds)
    soundfile.write(tmp_path / "a.flac", np.stack([left, np.zeros_like(left)], axis=1), 44100)
    waveform = load_waveform(tmp_path / "a.flac", 16000)
    assert waveform.shape == (16000,)
    assert waveform.dtype == np.float32
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(waveform[500:-500], expected[500:-500], atol=2e-3)


def test_16_bit_recordings_come_back_exactly_cut_or_padded(tmp_path):
    recorded = np.random.default_rng(0).integers(-32768, 32768, 100, dtype=np.int16)
    recorded[:2] = -32768, 32767
    soundfile.write(tmp_path / "a.wav", recorded, 16000)
    assert np.array_equal(to_int16(load_waveform(tmp_path / "a.wav", 16000, 60)), recorded[:60])
    padded = to_int16(load_waveform(tmp_path / "a.wav", 16000, 150))
    assert np.array_equal(padded, np.pad(recorded, (0, 50)))


def test_broken_and_empty_files_are_named(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF no sound")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    for name in ("broken.wav", "empty.wav", "missing.wav"):
        with pytest.raises(DataError, match=name) as error:
            load_waveform(tmp_path / name, 16000)
        assert "\n" not in str(error.value)


def test_shift_moves_each_recording_and_fills_with_zeros():
    torch.manual_seed(0)
    waveform = torch.arange(1.0, 101).expand(64, 100)
    shifted = random_shift(waveform, 10)
    offsets = set()
    for row in shifted:
        kept = row[row > 0]
        assert torch.equal(kept, torch.arange(kept[0].item(), kept[-1].item() + 1))  # in order, unbroken
        offset = int((row > 0).nonzero()[0]) - int(kept[0] - 1)
        assert abs(offset) <= 10
        assert len(kept) == 100 - abs(offset)
        offsets.add(offset)
    assert len(offsets) > 10


def test_gain_and_noise_stay_within_their_bounds():
    torch.manual_seed(0)
    waveform = torch.sin(torch.arange(16000) * 0.1).expand(200, -1)
    gained = random_gain_noise(waveform, 6.0, (300.0, 300.0))
    gain_db = 20 * (gained.square().mean(1) / waveform.square().mean(1)).sqrt().log10()
    assert gain_db.abs().max() <= 6.01
    assert gain_db.max() - gain_db.min() > 10
    noise = random_gain_noise(waveform, 0.0, (10.0, 20.0)) - waveform
    snr = 10 * (waveform.square().mean(1) / noise.square().mean(1)).log10()
    assert 9.8 < snr.min() < 11
    assert 19 < snr.max() < 20.2


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
