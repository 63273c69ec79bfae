import hashlib
import resource

import numpy as np
import pytest
import soundfile

from sdsnn_lightning.errors import DataError
from sdsnn_lightning.simulate.speech import SPEAKERS, TAKES, WORDS, write_simulated_commands
from sdsnn_lightning.simulate.voices import PHONES, SAMPLE_RATE, Speaker, draw_speakers, synthesise


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_simulated_commands(tmp_path_factory.mktemp("commands") / "set")


def test_a_full_set_with_disjoint_speakers(root):
    files = {f"{path.parent.name}/{path.name}" for path in root.glob("[!_]*/*.wav")}
    assert len(files) == len(WORDS) * SPEAKERS * TAKES == 576
    val, test = ((root / f"{name}_list.txt").read_text().split() for name in ("validation", "testing"))
    assert len(val) == len(test) == len(WORDS) * 2 * TAKES
    assert set(val) | set(test) <= files
    speakers = [{name.split("/")[1].split("_")[0] for name in part} for part in (files - {*val, *test}, val, test)]
    assert [len(part) for part in speakers] == [8, 2, 2]
    assert len(set.union(*speakers)) == SPEAKERS
    info = soundfile.info(next(root.glob("*/*.wav")))
    assert (info.samplerate, info.channels, info.frames, info.subtype) == (16000, 1, 16000, "PCM_16")


def test_background_noises_have_their_colours(root):
    slopes = {}
    for path in (root / "_background_noise_").glob("*.wav"):
        sound, rate = soundfile.read(path)
        assert (rate, len(sound)) == (16000, 20 * 16000)
        assert sound.std() == pytest.approx(0.1, rel=0.02)
        power = np.abs(np.fft.rfft(sound)) ** 2
        octaves = [power[20 * f : 40 * f].mean() for f in (250, 500, 1000, 2000)]  # from f to 2 f Hz
        slopes[path.stem] = 10 * np.diff(np.log10(octaves)).mean()
    assert set(slopes) == {"white_noise", "pink_noise", "machine_hum"}
    assert slopes["white_noise"] == pytest.approx(0, abs=0.3)
    assert slopes["pink_noise"] == pytest.approx(-3.01, abs=0.3)


def test_the_same_seed_gives_the_same_sound():
    voices = draw_speakers(2, seed=0)
    first, again, other = (synthesise("nolu", voices, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert hashlib.sha256(first.tobytes()).digest() == hashlib.sha256(again.tobytes()).digest()
    assert np.abs(first - other).max() > 0.05
    assert draw_speakers(2, seed=0) == voices != draw_speakers(2, seed=1)


def test_it_is_not_written_twice_and_never_over_something_else(root, tmp_path):
    before = (root / "nolu").stat().st_mtime_ns
    assert write_simulated_commands(root) == root
    assert (root / "nolu").stat().st_mtime_ns == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match=r"mine: holds no readable simulated\.json"):
        write_simulated_commands(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("vowel", "tract"), [("i", 1.0), ("a", 1.0), ("u", 1.0), ("a", 1.2)])
def test_vowels_resonate_at_their_formants(vowel, tract):
    voices = [Speaker("x", pitch=100.0, tract=tract, rate=0.4, breath=0.05)] * 8
    sound = synthesise(vowel * 2, voices, np.random.default_rng(0))
    spectrum = (np.abs(np.fft.rfft(sound)) ** 2).mean(0)
    frequency = np.fft.rfftfreq(sound.shape[1], 1 / SAMPLE_RATE)
    smooth = np.convolve(spectrum, np.ones(150) / 150, mode="same")  # over the harmonics
    first, second, _ = (formant * tract for formant in PHONES[vowel].formants)
    for formant in (first, second):
        peak = smooth[np.abs(frequency - formant) < 0.1 * formant + 60].max()
        valley = smooth[np.abs(frequency - (first + second) / 2) < 60].min()
        assert peak > 1.5 * valley or second - first < 400


def test_pitch_is_the_speakers():
    for pitch in (100.0, 220.0):
        voices = [Speaker("x", pitch, 1.0, 0.8, 0.02)] * 16
        sound = synthesise("aa", voices, np.random.default_rng(0))
        loud = sound[:, 7000:9000] - sound[:, 7000:9000].mean(1, keepdims=True)
        correlation = np.fft.irfft(np.abs(np.fft.rfft(loud, 4096)) ** 2)
        lags = np.arange(50, 250)
        period = np.median(lags[correlation[:, lags].argmax(1)])
        assert SAMPLE_RATE / period == pytest.approx(pitch, rel=0.15)


def test_a_disk_that_fills_up_is_told_in_one_line(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # refuses as a full disk does
    try:
        with pytest.raises(DataError, match=r"set: cannot write the simulated set of 20 MB \(File too large\); free"):
            write_simulated_commands(tmp_path / "set")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "set").exists()
