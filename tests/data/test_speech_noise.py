"""Background noise: crops stay within one recording, silence is drawn as promised, mixing keeps its bounds."""

import pickle

import numpy as np
import pytest
import soundfile
import torch

from sdsnn_lightning.data.speech_noise import BackgroundNoise, Silence, load_background, mix_background
from sdsnn_lightning.errors import DataError


def noise(samples=4):
    """Recordings 10..15, 20..24 and the short 30, 31, which is repeated to the length of a crop."""
    sounds = (np.arange(10, 16), np.arange(20, 25), np.arange(30, 32))
    return BackgroundNoise([sound.astype(np.int16) for sound in sounds], samples)


def test_every_crop_there_is_can_be_drawn_and_none_spans_two_recordings():
    crops = noise().crops(torch.arange(6) / 6)  # 3 + 2 + 1 crops, each with an equal share
    assert crops.tolist() == [
        [10, 11, 12, 13], [11, 12, 13, 14], [12, 13, 14, 15], [20, 21, 22, 23], [21, 22, 23, 24], [30, 31, 30, 31],
    ]  # fmt: skip
    assert noise().crops(torch.tensor([1.0 - 2**-24])).tolist() == [[30, 31, 30, 31]]  # the largest that is drawn
    assert crops.dtype == torch.int16


def test_crops_on_a_device_leave_the_sound_of_loader_processes_where_it_is():
    shared = noise()
    assert shared.crops(torch.rand(2, device="meta")).shape == (2, 4)  # a device that nothing comes back from
    assert shared.sound.device.type == "cpu"
    assert shared.crops(torch.zeros(1)).tolist() == [[10, 11, 12, 13]]
    assert pickle.loads(pickle.dumps(shared)).crops(torch.zeros(1)).tolist() == [[10, 11, 12, 13]]


def test_silence_is_the_same_with_a_seed_and_fresh_without():
    fixed = Silence(noise(), 3, target=7, seed=(1, 2))
    assert len(fixed) == 3
    assert fixed[1]["target"] == 7
    assert all(torch.equal(fixed[k]["audio"], Silence(noise(), 3, 7, (1, 2))[k]["audio"]) for k in range(3))
    with pytest.raises(IndexError):
        fixed[3]
    torch.manual_seed(0)
    drawn = {tuple(Silence(noise(), 1, 7)[0]["audio"].tolist()) for _ in range(20)}
    assert len(drawn) > 5
    assert all(0 <= value <= 31 for crop in drawn for value in crop)  # a volume in [0, 1]


def test_noise_is_mixed_within_its_volume_and_clipped():
    loud = BackgroundNoise([np.full(8, 16384, np.int16)], 8)  # half of full scale
    torch.manual_seed(0)
    mixed = mix_background(torch.zeros(200, 8), loud, 0.5, 0.4)
    gains = 2 * mixed[:, 0]
    assert torch.equal(mixed, mixed[:, :1].expand(-1, 8))
    assert 70 < (gains > 0).sum() < 130
    assert 0.3 < gains.max() <= 0.4
    assert torch.equal(mix_background(torch.ones(5, 8), loud, 1.0, 0.4), torch.ones(5, 8))
    assert torch.equal(mix_background(torch.zeros(5, 8), loud, 0.0, 0.4), torch.zeros(5, 8))


def test_recordings_are_read_in_order_and_none_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"_background_noise_ holds no \.wav or \.flac file; restore it"):
        load_background(tmp_path, 16000, 4)
    folder = tmp_path / "_background_noise_"
    folder.mkdir()
    (folder / "README.md").touch()
    for name, value in (("b.wav", 0.5), ("a.flac", 0.25)):
        soundfile.write(folder / name, np.full(6, value), 16000, subtype="PCM_16")
    assert load_background(tmp_path, 16000, 4).sound.tolist() == [8192] * 6 + [16384] * 6
    (folder / "b.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"b\.wav"):
        load_background(tmp_path, 16000, 4)


def test_noise_is_read_by_the_rules_of_words(tmp_path):
    folder = tmp_path / "_background_noise_"
    folder.mkdir()
    soundfile.write(folder / "W.WAV", np.full((600, 2), 0.5), 32000, subtype="PCM_16")
    (folder / "._W.WAV").write_bytes(b"what macOS leaves")
    with pytest.warns(
        UserWarning, match="1 of 1 recordings are converted to mono at 16000 Hz, .* W.WAV with 2 x 32000"
    ):
        assert len(load_background(tmp_path, 16000, 4).sound) == 300
