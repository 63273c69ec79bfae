import numpy as np
import pytest
from places import SHARED

from sdsnn_lightning.data.aedat import read_aedat
from sdsnn_lightning.data.event_frames import (
    count_bounds,
    duration_bounds,
    frames_by_count,
    frames_by_duration,
    pixel_map,
    sum_events,
    voxel_grid,
)
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE

FEW = np.array([(0, 0, 0, 1), (1, 2, 1, 0), (4, 2, 1, 0), (5, 2, 1, 1), (9, 0, 1, 1)], EVENT_DTYPE)


def random_events(count, seed=0):
    rng = np.random.default_rng(seed)
    events = np.empty(count, EVENT_DTYPE)
    events["t"] = np.cumsum(rng.integers(0, 3, count)) + 1000
    events["x"], events["y"], events["p"] = (rng.integers(0, n, count) for n in (128, 128, 2))
    return events


def test_bounds_by_hand():
    assert count_bounds(10, 4).tolist() == [0, 2, 4, 6, 10]  # the last frame takes the rest
    assert count_bounds(8, 4).tolist() == [0, 2, 4, 6, 8]
    assert count_bounds(3, 4).tolist() == [0, 0, 0, 0, 3]
    times = np.array([0, 1, 4, 5, 9], np.int64)
    assert duration_bounds(times, 2).tolist() == [0, 2, 5]  # 9 // 2 = 4 us: [0, 4), and the rest
    assert duration_bounds(times, 3).tolist() == [0, 2, 4, 5]  # 3 us: [0, 3) [3, 6) and the rest
    assert duration_bounds(times, 2, start=1, stop=9).tolist() == [1, 3, 4]  # [1, 5) [5, 9)
    assert duration_bounds(times, 4, start=100, stop=200).tolist() == [5] * 5


def test_frames_by_hand():
    by_count = frames_by_count(FEW, 2, (2, 3))  # 2 events, then 3
    assert by_count.tolist() == [
        [[[0, 0, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 0]]],
        [[[0, 0, 0], [0, 0, 1]], [[0, 0, 0], [1, 0, 1]]],
    ]
    by_duration = frames_by_duration(FEW, 3, (2, 3))  # 2 events, 2 events, 1 event
    assert by_duration.sum((1, 2, 3)).tolist() == [2, 2, 1]
    assert by_duration[1].tolist() == [[[0, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, 1]]]


def test_pixel_map_by_hand():
    assert pixel_map(8, 8).tolist() == list(range(8))
    assert pixel_map(8, 3, "sum").tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert pixel_map(8, 3).tolist() == [0, -1, 1, -1, -1, 2, -1, -1]


def test_nearest_is_what_resizing_the_frames_gives():
    import torch
    from torch.nn.functional import interpolate

    events = random_events(20_000)
    small = sum_events(events, count_bounds(len(events), 3), pixel_map(128, 48), pixel_map(128, 48))
    frames = torch.from_numpy(frames_by_count(events, 3).astype(np.float32))
    assert (interpolate(frames, 48, mode="nearest").numpy() == small).all()
    summed = sum_events(events, count_bounds(len(events), 3), pixel_map(128, 32, "sum"), pixel_map(128, 32, "sum"))
    blocks = frames.numpy().reshape(3, 2, 32, 4, 32, 4).sum((3, 5))
    assert (blocks == summed).all()
    assert summed.sum() == 20_000


def test_a_count_stops_at_the_highest_number():
    events = np.zeros(70_000, EVENT_DTYPE)
    assert frames_by_count(events, 1, (1, 1)).tolist() == [[[[65535]], [[0]]]]


def test_agrees_with_tonic_where_conventions_agree():
    from tonic.transforms import ToFrame

    events = random_events(4000)
    theirs = events.astype([("t", int), ("x", int), ("y", int), ("p", int)])
    ours = frames_by_count(events, 8)  # 4000 is a multiple of 8: nothing is left over
    assert (ToFrame((128, 128, 2), n_event_bins=8)(theirs) == ours).all()
    # tonic drops what is left over by whole microseconds, and the last event: all but the last frame agree
    by_time = ToFrame((128, 128, 2), n_time_bins=8)(theirs)
    ours = frames_by_duration(events, 8)
    assert (by_time[:-1] == ours[:-1]).all()
    assert (by_time[-1] <= ours[-1]).all()
    assert ours.sum() == 4000
    fixed = ToFrame((128, 128, 2), time_window=100)(theirs)
    start = int(events["t"][0])
    assert (fixed == frames_by_duration(events, len(fixed), start=start, stop=start + 100 * len(fixed))).all()


def test_voxel_grid_by_hand():
    events = np.array([(0, 0, 0, 1), (3, 1, 0, 0), (5, 1, 0, 1), (10, 0, 0, 1)], EVENT_DTYPE)
    # places on 3 moments: 0, 0.6, 1, 2
    signed = voxel_grid(events, 3, (1, 2))
    assert signed.shape == (3, 1, 1, 2)
    np.testing.assert_allclose(signed[:, 0, 0], [[1, -0.4], [0, -0.6 + 1], [1, 0]], atol=1e-6)
    apart = voxel_grid(events, 3, (1, 2), signed=False)
    np.testing.assert_allclose(apart[:, 0, 0], [[0, 0.4], [0, 0.6], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(apart[:, 1, 0], [[1, 0], [0, 1], [1, 0]], atol=1e-6)
    assert voxel_grid(events, 1, (1, 2), signed=False).sum() == 4
    assert voxel_grid(events[:1], 4, (1, 2), signed=False).sum() == 1
    many = random_events(5000)
    assert voxel_grid(many, 7, signed=False).sum() == pytest.approx(5000, rel=1e-5)


@pytest.mark.parametrize("signed", [True, False])
def test_voxel_grid_is_the_formula_to_the_last_bit(signed):
    events = random_events(3000)
    times = events["t"].astype(np.float64)
    place = (times - times[0]) * (6 / (times[-1] - times[0]))
    left = np.minimum(place.astype(np.int64), 5)
    channel = np.zeros(len(events), np.int64) if signed else events["p"].astype(np.int64)
    weight = np.where(events["p"] > 0, 1.0, -1.0) if signed else np.ones(len(events))
    before, after = (np.zeros((7, 1 if signed else 2, 128, 128)) for _ in range(2))
    np.add.at(before, (left, channel, events["y"], events["x"]), weight * (1 - (place - left)))
    np.add.at(after, (left + 1, channel, events["y"], events["x"]), weight * (place - left))
    assert (voxel_grid(events, 7, signed=signed) == (before + after).astype(np.float32)).all()


@pytest.mark.parametrize("make", [voxel_grid, frames_by_count, frames_by_duration])
def test_an_event_outside_the_sensor_is_named(make):
    with pytest.raises(DataError, match="event 1 at x 2, y 1 is outside the 2x3 sensor"):
        make(FEW, 2, (3, 2))
    below = FEW.copy()
    below["y"][3] = -1
    with pytest.raises(DataError, match="event 3 at x ., y -1 is outside the 3x3 sensor"):
        make(below, 2, (3, 3))


@pytest.mark.skipif(not (SHARED / "dvs128_objects").is_dir(), reason="no real recordings")
def test_no_event_of_a_real_recording_is_lost():
    events = read_aedat(SHARED / "dvs128_objects" / "session_2018-10-06" / "Caneca.aedat")
    for steps in (1, 4, 16):
        counts = frames_by_count(events, steps)
        assert counts.sum() == len(events) == 351_217
        assert counts[0].sum() == len(events) // steps
        assert counts[:, 1].sum() == (events["p"] == 1).sum()
        assert frames_by_duration(events, steps).sum() == len(events)
