import json

import numpy as np
import pytest

from sdsnn_lightning.data.spike_files import SpikeFile
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.simulate import spiking_speech
from sdsnn_lightning.simulate.cochlea import place_hz
from sdsnn_lightning.simulate.speech import WORDS
from sdsnn_lightning.simulate.spiking_speech import (
    ENGLISH_DIGITS,
    GERMAN_DIGITS,
    TAKES,
    cut_silence,
    write_simulated_spikes,
)
from sdsnn_lightning.simulate.voices import PHONES

FEW = 6  # speakers, so that 4 and 5 and two others are there


def parts(root, prefix):
    return {path.stem.removeprefix(f"{prefix}_"): SpikeFile(path) for path in sorted(root.glob("*.h5"))}


@pytest.fixture(scope="module")
def small():
    """Half the speakers and one take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spiking_speech, "SPEAKERS", FEW)
        patch.setattr(spiking_speech, "TAKES", 1)
        yield


@pytest.fixture(scope="module")
def digits(small, tmp_path_factory):
    root = tmp_path_factory.mktemp("simulated") / "shd"
    write_simulated_spikes(root, "shd")
    return root


def test_digits_of_two_languages_with_two_speakers_held_out(digits):
    files = parts(digits, "shd")
    assert set(files) == {"train", "test"}
    assert files["train"].class_names == files["test"].class_names == [*ENGLISH_DIGITS, *GERMAN_DIGITS]
    assert len(files["train"]) + len(files["test"]) == 20 * FEW
    assert set(files["train"].speakers) == {0, 1, 2, 3}
    test = files["test"].speakers
    assert [(test == speaker).sum() for speaker in (4, 5)] == [20, 20]
    assert 0 < (test < 4).sum() < 12  # about 5 % of the 80 others
    assert set(files["train"].labels) == set(range(20))
    assert (np.diff(files["train"].labels) < 0).any()  # shuffled


def test_recordings_are_of_the_size_of_real_ones(digits):
    file = parts(digits, "shd")["train"]
    counts = [len(file[k].times) for k in range(len(file))]
    last = [float(file[k].times[-1]) for k in range(len(file))]
    assert 6000 < np.mean(counts) < 16000
    assert 0.35 < np.mean(last) < 0.8
    assert max(last) < 1.2


def test_words_with_disjoint_speakers_in_three_files(small, tmp_path):
    write_simulated_spikes(tmp_path / "ssc", "ssc")
    files = parts(tmp_path / "ssc", "ssc")
    assert {part: set(file.speakers) for part, file in files.items()} == {
        "train": {4, 5}, "valid": {0, 1}, "test": {2, 3}
    }  # fmt: skip
    assert all(len(file) == 2 * len(WORDS) and file.class_names == sorted(WORDS) for file in files.values())


def test_the_words_sound_different(digits):
    """`ze.ks` ends with a hiss, `wan` has none: more spikes above 3.5 kHz."""
    file = parts(digits, "shd")["train"]
    high = {word: [] for word in ("sechs", "one")}
    for k in range(len(file)):
        if file[k].key in high:
            high[file[k].key].append((place_hz(file[k].units) > 3500).sum())
    assert min(high["sechs"]) > max(high["one"])


def test_the_same_seed_gives_the_same_spikes(small, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(spiking_speech, "ENGLISH_DIGITS", {"zero": ENGLISH_DIGITS["zero"]})
    monkeypatch.setattr(spiking_speech, "GERMAN_DIGITS", {})
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_simulated_spikes(tmp_path / name, "shd", seed)
    a, b, c = (parts(tmp_path / name, "shd")["test"] for name in "abc")
    assert len(a) == len(b)
    for k in range(len(a)):
        assert np.array_equal(a[k].times, b[k].times)
        assert np.array_equal(a[k].units, b[k].units)
    first = [min(len(file[k].times) for k in range(len(file))) for file in (a, c)]
    assert first[0] != first[1]


def test_it_is_not_written_twice_and_never_over_something_else(digits, tmp_path):
    before = (digits / "shd_train.h5").stat().st_mtime_ns
    write_simulated_spikes(digits, "shd")
    assert (digits / "shd_train.h5").stat().st_mtime_ns == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match=r"mine: holds no readable simulated\.json"):
        write_simulated_spikes(tmp_path / "mine", "shd")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert json.loads((digits / "simulated.json").read_text())["parameters"] == {"prefix": "shd", "seed": 0}


def test_nothing_is_left_when_writing_fails(small, tmp_path, monkeypatch):
    monkeypatch.setattr(spiking_speech, "ENGLISH_DIGITS", {"zero": "?"})  # a phone that does not exist
    with pytest.raises(KeyError):
        write_simulated_spikes(tmp_path / "set", "shd")
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_silence_around_a_word_is_cut():
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.002, 16000)
    sound[5000:9000] += rng.normal(0, 0.2, 4000)
    word = cut_silence(sound)
    assert len(word) == 26 * 160 + 2 * 320  # the 10 ms frames 31 to 56, and 20 ms on either side
    assert np.abs(word).max() == np.abs(sound).max()
    assert len(cut_silence(np.zeros(800))) == 800


def test_every_phone_of_every_word_is_known():
    assert all(set(phones) <= set(PHONES) for words in (ENGLISH_DIGITS, GERMAN_DIGITS) for phones in words.values())
    assert len({*ENGLISH_DIGITS.values(), *GERMAN_DIGITS.values()}) == 20
    assert TAKES == 3
