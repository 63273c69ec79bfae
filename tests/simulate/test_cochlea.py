import time

import numpy as np
import pytest
from places import SHARED

from sdsnn_lightning.errors import DataError
from sdsnn_lightning.simulate.cochlea import RATE, REFRACTORY, UNITS, UNITS_PER_OCTAVE, place_hz, spike_trains


def tone(hz, seconds=0.4, sample_rate=RATE, amplitude=0.4):
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * sample_rate)) / sample_rate)


def unit_of(hz):
    return UNITS_PER_OCTAVE * np.log2(float(place_hz(0)) / hz)


def test_places_fall_by_an_octave_every_92_units_from_high_to_low():
    assert abs(UNITS_PER_OCTAVE - 92.28) < 0.01
    assert place_hz(0) == pytest.approx(7118)
    assert place_hz(699) == pytest.approx(7118 * np.exp(-1.5 * 3.5)) == pytest.approx(37.35, abs=0.01)
    assert place_hz(UNITS_PER_OCTAVE) == pytest.approx(3559)


def test_output_is_sorted_in_range_and_the_same_every_time():
    sound = np.random.default_rng(0).normal(0, 0.1, RATE)
    times, units = spike_trains(sound, RATE)
    assert (times.dtype, units.dtype, times.shape) == (np.float32, np.int16, units.shape)
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert times[-1] < 1
    assert units.min() >= 0
    assert units.max() < UNITS
    assert all(np.array_equal(a, b) for a, b in zip(spike_trains(sound, RATE), (times, units), strict=True))
    busy = np.bincount(units).argsort()[-5:]
    for unit in busy:  # no cell fires again within its refractory time
        assert REFRACTORY < np.diff(times[units == unit]).min() < 5 * REFRACTORY


@pytest.mark.parametrize("hz", [200, 400, 800, 1600, 3200, 6400])
def test_a_tone_excites_the_units_around_its_place(hz):
    _, units = spike_trains(tone(hz, amplitude=200 / hz), RATE, level=None)
    middle = np.median(units)
    assert abs(middle - unit_of(hz)) < 12
    assert np.abs(units - middle).max() < 140


def test_doubling_the_frequency_moves_the_middle_by_an_octave_of_units():
    middles = [np.median(spike_trains(tone(hz, amplitude=100 / hz), RATE, level=None)[1]) for hz in (500, 1000, 2000)]
    assert np.diff(middles) == pytest.approx([-UNITS_PER_OCTAVE] * 2, abs=10)


def test_louder_gives_more_spikes_and_normalisation_undoes_it():
    counts = [len(spike_trains(tone(1000, amplitude=a), RATE, level=None)[0]) for a in (0.05, 0.1, 0.2, 0.4)]
    assert (np.diff(counts) > 0).all()
    quiet, loud = (spike_trains(tone(1000, amplitude=a), RATE) for a in (0.02, 0.5))
    assert len(quiet[0]) == pytest.approx(len(loud[0]), rel=0.01)


def test_silence_and_hiss_give_no_spikes():
    assert len(spike_trains(np.zeros(RATE), RATE)[0]) == 0
    assert len(spike_trains(np.random.default_rng(0).normal(0, 3e-5, RATE), RATE)[0]) == 0
    assert len(spike_trains(np.zeros(1), 8000)[0]) == 0


def test_silence_around_a_word_does_not_change_its_spikes():
    word = np.random.default_rng(0).normal(0, 0.1, 4800)
    padded = np.pad(word, (3200, 8000))
    (times, units), (later, same) = spike_trains(word, RATE), spike_trains(padded, RATE)
    assert len(same) == pytest.approx(len(units), rel=0.03)
    assert np.median(later) - np.median(times) == pytest.approx(0.2, abs=0.01)


def test_a_click_reaches_high_frequencies_first():
    click = np.zeros(RATE // 2)
    click[2000] = 60.0
    times, units = spike_trains(click, RATE, level=None)
    first = [times[np.abs(units - unit) < 15].min() for unit in (50, 150, 250, 350, 450)]
    assert first[0] > 2000 / RATE
    assert (np.diff(first) > 0).all()
    assert first[-1] < 2000 / RATE + 0.03


def test_the_onset_is_stronger_than_what_follows():
    times, _ = spike_trains(tone(3000, seconds=0.5, amplitude=0.3), RATE, level=None)
    onset, later = (((times >= a) & (times < a + 0.04)).sum() for a in (0.0, 0.4))
    assert onset > 3 * later > 100


def test_the_sample_rate_hardly_matters():
    rng = np.random.default_rng(0)
    spectrum = rng.normal(size=2001) + 1j * rng.normal(size=2001)  # band of 200 to 3000 Hz, at any rate
    band = np.arange(2001) / 0.5
    spectrum *= (band > 200) & (band < 3000)
    sounds = {rate: np.fft.irfft(spectrum, n=rate // 2) * rate for rate in (8000, 16000, 44100)}
    counts = {rate: np.bincount(spike_trains(x, rate)[1] // 50, minlength=14) for rate, x in sounds.items()}
    assert counts[16000].sum() > 1000
    for rate in (8000, 44100):
        assert np.abs(counts[rate] - counts[16000]).sum() < 0.05 * counts[16000].sum()


def test_units_above_half_the_rate_stay_silent():
    noise = np.random.default_rng(0).normal(0, 0.2, 8000)
    assert place_hz(spike_trains(noise, 8000)[1]).max() < 4000
    assert place_hz(spike_trains(noise, 16000)[1]).max() > 6000


def test_long_sound_is_not_cut_at_chunk_borders():
    times, units = spike_trains(tone(400, seconds=1.2, amplitude=0.5), RATE, level=None)
    gaps = np.diff(times[(times > 0.3) & (units == np.bincount(units).argmax())])
    assert len(gaps) > 300
    assert gaps == pytest.approx(1 / 400, abs=2.1 / RATE)  # a state lost after 8192 samples would shift the phase


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((4, 2)), np.array([0.0, np.nan])])
def test_what_is_no_waveform_is_refused(bad):
    with pytest.raises(DataError, match="finite mono samples"):
        spike_trains(bad, RATE)


def test_it_runs_far_faster_than_real_time():
    sound = np.random.default_rng(0).normal(0, 0.1, RATE)
    spike_trains(sound, RATE)
    best = min(_seconds(sound) for _ in range(3))
    assert best < 1 / 8  # 40 to 60 times on one free core; a busy machine must not fail the test


def _seconds(sound):
    start = time.perf_counter()
    spike_trains(sound, RATE)
    return time.perf_counter() - start


@pytest.mark.skipif(not SHARED.exists(), reason="no real recordings")
def test_real_digits_give_about_as_many_spikes_as_in_shd():
    import soundfile

    files = (
        sorted((SHARED / "fsdd").glob("*.flac"))[::150] + sorted((SHARED / "speech_commands_ar").glob("*ee/*"))[::12]
    )
    counts = [len(spike_trains(*soundfile.read(str(file)))[0]) for file in files]
    assert 5000 < np.mean(counts) < 11000
    assert min(counts) > 1000
