import time

import numpy as np
import pytest
import soundfile
from speech_set import SPEAKERS, write_speech_set

from sdsnn_lightning.data.speech_words import split_files
from sdsnn_lightning.data.waveform_cache import build_waveforms, cache_file, open_waveforms
from sdsnn_lightning.errors import DataError


@pytest.fixture
def root(tmp_path):
    return write_speech_set(tmp_path / "set")


@pytest.fixture
def files(root):
    return [file for part in split_files(root, ["bed", "cat"]).values() for file in part]


def test_the_cache_is_built_once_and_again_for_other_files(root, files, tmp_path):
    args = (root, files, 16000, 16000, tmp_path / "cache")
    with pytest.raises(DataError, match="prepare_data"):
        open_waveforms(cache_file(*args))
    path = build_waveforms(*args)
    written = path.stat().st_mtime_ns
    assert build_waveforms(*args) == path
    assert path.stat().st_mtime_ns == written
    waveforms = open_waveforms(path)
    assert waveforms.shape == (16, 16000)
    assert waveforms.dtype == np.int16
    assert build_waveforms(root, files, 8000, 8000, tmp_path / "cache") != path

    time.sleep(0.01)
    soundfile.write(root / files[0], np.zeros(12000), 16000)
    renewed = build_waveforms(*args)
    assert renewed != path
    assert not open_waveforms(renewed)[0].any()
    assert np.array_equal(open_waveforms(renewed)[1:], waveforms[1:])


def test_a_broken_recording_leaves_no_cache(root, files, tmp_path):
    (root / "bed" / f"{SPEAKERS[2]}_nohash_0.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match=f"{SPEAKERS[2]}_nohash_0.wav"):
        build_waveforms(root, files, 16000, 16000, tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*.npy")) == []
    assert list((tmp_path / "cache").glob("*partial*")) == []


def test_a_damaged_cache_is_named(root, files, tmp_path):
    path = build_waveforms(root, files, 16000, 16000, tmp_path / "cache")
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match="delete the file"):
        open_waveforms(path)


def test_sound_of_other_kinds_is_converted_and_said_once(root, files, tmp_path, recwarn):
    sound = np.random.default_rng(0).normal(0, 0.1, (44100, 2))
    for name, rate in (("bed", 44100), ("cat", 16000)):
        soundfile.write(root / name / f"{SPEAKERS[2]}_nohash_0.wav", sound, rate)
    for _ in range(2):
        build_waveforms(root, files, 16000, 16000, tmp_path / "cache")
    said = [str(w.message) for w in recwarn if "converted" in str(w.message)]
    assert len(said) == 1
    assert f"2 of 16 recordings were converted to mono at 16000 Hz, the first of them bed/{SPEAKERS[2]}" in said[0]
    assert "2 x 44100 Hz" in said[0]
