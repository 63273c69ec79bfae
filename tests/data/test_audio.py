import numpy as np
import pytest
import soundfile
import torch

from sdsnn_lightning.data.audio import decode, random_gain_noise, random_shift, to_int16, to_mono
from sdsnn_lightning.errors import DataError


def test_stereo_of_another_rate_becomes_mono_of_ours(tmp_path):
    seconds = np.arange(44100) / 44100
    left = 0.5 * np.sin(2 * np.pi * 440 * seconds)
    soundfile.write(tmp_path / "a.flac", np.stack([left, np.zeros_like(left)], axis=1), 44100)
    waveform = to_mono(*decode(tmp_path / "a.flac"), 16000)
    assert waveform.shape == (16000,)
    assert waveform.dtype == np.float32
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(waveform[500:-500], expected[500:-500], atol=2e-3)


def test_16_bit_recordings_come_back_exactly_cut_or_padded(tmp_path):
    recorded = np.random.default_rng(0).integers(-32768, 32768, 100, dtype=np.int16)
    recorded[:2] = -32768, 32767
    soundfile.write(tmp_path / "a.wav", recorded, 16000)
    assert np.array_equal(to_int16(to_mono(*decode(tmp_path / "a.wav"), 16000, 60)), recorded[:60])
    padded = to_int16(to_mono(*decode(tmp_path / "a.wav"), 16000, 150))
    assert np.array_equal(padded, np.pad(recorded, (0, 50)))


def test_broken_and_empty_files_are_named(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF no sound")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    for bad in (np.nan, np.inf):
        soundfile.write(tmp_path / f"{bad}.wav", np.array([0.0, bad, 0.0]), 16000, subtype="FLOAT")
    for name in ("broken.wav", "empty.wav", "missing.wav", "nan.wav", "inf.wav"):
        with pytest.raises(DataError, match=name) as error:
            to_mono(*decode(tmp_path / name), 16000)
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


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "AIFF", "FLAC"])
def test_a_recording_that_breaks_off_is_told(tmp_path, kind):
    path = tmp_path / f"a.{kind.lower()}"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 4000), 16000, format=kind)
    assert decode(path)[0].shape == (4000, 1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="breaks off|cannot be read as audio"):
        decode(path)


@pytest.mark.parametrize("rate", [7, 100_000_007])
def test_a_sample_rate_that_no_sound_has(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.ones(100), rate)
    with pytest.raises(DataError, match=rf"a\.wav says that it has {rate} samples a second"):
        decode(tmp_path / "a.wav")
