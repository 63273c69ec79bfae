from collections import Counter

import numpy as np
import pytest
import torch

from sdsnn_lightning.data.clip_cache import ClipCache
from sdsnn_lightning.data.clips import WindowDataset, covered, sample_official_windows, sample_windows
from sdsnn_lightning.errors import DataError

# Setting, and the positions of the window that starts at 0, by hand.
SETTINGS = {
    (4, 0): [0, 1, 2, 3],
    (4, 1): [0, 2, 4, 6],
    (4, 3): [0, 4, 8, 12],
    (7, 0): [0, 1, 2, 3, 4, 5, 6],
    (7, 1): [0, 2, 4, 6, 8, 10, 12],
    (13, 0): [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
}


@pytest.mark.parametrize(("steps", "skip"), SETTINGS)
def test_every_window_that_fits_is_drawn_equally_often(steps, skip):
    torch.manual_seed(0)
    first, count, draws = SETTINGS[steps, skip], 20, 14000
    assert covered(steps, skip) == first[-1] + 1
    seen = Counter(map(tuple, sample_windows(torch.full((draws,), count), steps, skip).tolist()))
    starts = count - first[-1]  # the last one touches the last image
    assert set(seen) == {tuple(i + start for i in first) for start in range(starts)}
    expected = draws / starts
    assert all(abs(n - expected) < 5 * expected**0.5 for n in seen.values())


def test_bounds_are_each_clips_own():
    torch.manual_seed(0)
    counts = torch.tensor([4, 5, 30]).repeat(2000)
    last = sample_windows(counts, 4, 0)[:, -1].reshape(2000, 3)
    assert last.amax(0).tolist() == [3, 4, 29]
    assert last.amin(0).tolist() == [3, 3, 3]


def official(count, steps, stride):
    """The distribution of the authors' code, by listing both of its draws."""
    chance = Counter()
    drops = range(5) if stride > 1 else range(1)
    for drop in drops:
        left = list(range(count))[drop::stride]
        ends = max(0, len(left) - steps - 1) + 1
        for start in range(ends):
            window = left[start : start + steps]
            while len(window) < steps:
                window = (window + left)[:steps]
            chance[tuple(window)] += 1 / len(drops) / ends
    return chance


@pytest.mark.parametrize(("steps", "skip"), SETTINGS)
@pytest.mark.parametrize("count", [18, 21, 9])
def test_official_draws_have_the_authors_distribution(steps, skip, count):
    torch.manual_seed(0)
    draws = 10000
    seen = Counter(map(tuple, sample_official_windows(torch.full((draws,), count), steps, skip).tolist()))
    expected = official(count, steps, skip + 1)
    assert set(seen) == set(expected)
    assert all(abs(seen[w] - p * draws) <= 5 * (p * (1 - p) * draws) ** 0.5 for w, p in expected.items())


def test_official_never_draws_the_last_window_and_repeats_short_clips():
    torch.manual_seed(0)
    assert sample_official_windows(torch.full((1000,), 20), 4, 0).max() == 18
    assert sample_official_windows(torch.tensor([5]), 7, 0).tolist() == [[0, 1, 2, 3, 4, 0, 1]]


@pytest.fixture
def toy(tmp_path):
    """Three clips of 6, 9 and 5 images; the pixel value is the image's place in the cache."""
    values = np.arange(20, dtype=np.uint8)
    frames = np.broadcast_to(values[:, None, None], (20, 2, 2))
    np.save(tmp_path / "frames.npy", frames)
    np.save(tmp_path / "events.npy", 255 - frames)
    (tmp_path / "index.json").write_text('{"modalities": ["frames", "events"], "size": 2, "counts": [6, 9, 5]}')

    def make(**options):
        options = {"steps": 3, "skip": 1, "clips": [2, 1]} | options
        cache = ClipCache(tmp_path)
        return WindowDataset(cache, names=["a", "b", "c"], target=[10, 11, 12], lighting=[0, 1, 2], **options)

    return make


def test_training_samples_hold_their_own_clip_and_change(toy):
    torch.manual_seed(0)
    data = toy()
    assert len(data) == 2
    seen = set()
    for _ in range(50):
        sample = data[1]
        assert (sample["target"], sample["lighting"], sample["clip"], sample["run"]) == (11, 1, 1, 0)
        assert sample["frames"].shape == (3, 1, 2, 2)
        assert sample["frames"].dtype == torch.uint8
        assert torch.equal(sample["events"], 255 - sample["frames"])
        seen.add(tuple(sample["frames"][:, 0, 0, 0].tolist()))
    assert seen == {(6 + s, 8 + s, 10 + s) for s in range(5)}
    assert data[0]["frames"][:, 0, 0, 0].tolist() == [15, 17, 19]
    torch.manual_seed(7)
    first = [data[1]["frames"] for _ in range(5)]
    torch.manual_seed(7)
    assert all(torch.equal(data[1]["frames"], frames) for frames in first)


def test_a_batch_fetch_equals_single_fetches(toy):
    data = toy(runs=3, seed=5)
    assert len(data) == 6
    together = data.__getitems__([5, 0, 3])
    for i, sample in zip([5, 0, 3], together, strict=True):
        assert sample["run"] == i // 2
        assert sample["clip"] == [2, 1][i % 2]
        assert sample.keys() == data[i].keys()
        assert all(torch.equal(torch.as_tensor(sample[k]), torch.as_tensor(data[i][k])) for k in sample)


def test_evaluation_windows_are_fixed_by_their_seed_alone(toy):
    torch.manual_seed(1)
    first = toy(runs=20, seed=3, clips=[1]).windows
    torch.manual_seed(2)
    assert torch.equal(toy(runs=20, seed=3, clips=[1]).windows, first)
    assert not torch.equal(toy(runs=20, seed=4, clips=[1]).windows, first)
    assert len(torch.unique(first, dim=0)) > 3  # runs differ


def test_a_short_clip_is_named_unless_official(toy):
    with pytest.raises(DataError, match=r"clip c has 5 images, steps: 4 with skip: 1 need 7"):
        toy(steps=4)
    assert toy(steps=4, official_offset=True)[0]["frames"].shape[0] == 4
