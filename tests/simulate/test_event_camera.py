from dataclasses import replace

import numpy as np
import pytest

from sdsnn_lightning.data.video_files import frames_from_video
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.simulate.event_camera import (
    CLEAN,
    EVENT_DTYPE,
    EventCamera,
    EventCameraParams,
    event_frames,
    lin_log,
    simulate_events,
)


def ramp(log_steps: float, pixels: int = 1) -> np.ndarray:
    """Two frames whose log intensity differs by `log_steps`."""
    return np.stack([np.full((1, pixels), 100.0), np.full((1, pixels), 100.0 * np.exp(log_steps))])


@pytest.mark.parametrize(("change", "polarity"), [(1.05, 1), (-1.05, 0)])
def test_a_ramp_fires_once_a_threshold_at_the_crossing_times(change, polarity):
    events = simulate_events(ramp(change), [0, 10_500], CLEAN)
    assert events.dtype == EVENT_DTYPE
    assert len(events) == 5  # floor(1.05 / 0.2)
    assert (events["p"] == polarity).all()
    np.testing.assert_allclose(events["t"], [2000, 4000, 6000, 8000, 10000], atol=1)


def test_the_reference_carries_over_between_frames():
    frames = 100 * np.exp(np.linspace(0, 1.05, 22))[:, None, None]  # the same ramp in steps of a quarter threshold
    events = simulate_events(frames, np.arange(22) * 500, CLEAN)
    np.testing.assert_allclose(events["t"], [2000, 4000, 6000, 8000, 10000], atol=1)


def test_asymmetric_thresholds_and_reversal():
    params = replace(CLEAN, threshold_off=0.4)
    frames = 100 * np.exp(np.array([0.0, 0.9, 0.0]))[:, None, None]
    events = simulate_events(frames, [0, 9000, 18_000], params)
    assert events["p"].tolist() == [1, 1, 1, 1, 0, 0]  # up to 0.8, then 0.4 and 0.0
    np.testing.assert_allclose(events["t"][4:], [14_000, 18_000], atol=1)


def test_a_dead_pixel_loses_events_but_not_its_reference():
    events = simulate_events(ramp(1.05), [0, 10_500], replace(CLEAN, refractory_us=3000))
    np.testing.assert_allclose(events["t"], [2000, 6000, 10_000], atol=1)


def test_an_idle_pixel_leaks_positive_events_at_the_given_rate():
    frames = np.full((50, 30, 30), 100.0)
    events = simulate_events(frames, np.arange(50) * 1e5, replace(CLEAN, leak_rate_hz=2.0))
    assert (events["p"] == 1).all()
    assert len(events) == pytest.approx(900 * 4.9 * 2, rel=0.02)
    assert len(np.unique(events["t"])) > 1000  # out of phase


def test_shot_noise_has_the_given_rate_and_is_rarer_where_it_is_bright():
    frames = np.zeros((200, 20, 40))
    frames[:, :, 20:] = 255
    params = replace(CLEAN, shot_noise_rate_hz=8.0, shot_noise_bright=0.25)
    events = simulate_events(frames, np.arange(200) * 5e3, params, np.random.default_rng(3))
    dark, bright = (events["x"] < 20).sum(), (events["x"] >= 20).sum()
    seconds = 199 * 5e-3
    assert dark == pytest.approx(400 * seconds * 8, rel=0.08)
    assert bright == pytest.approx(400 * seconds * 2, rel=0.12)
    assert events["p"].mean() == pytest.approx(0.5, abs=0.05)


def test_thresholds_spread_over_pixels():
    events = simulate_events(ramp(2.0, 4000), [0, 10_000], replace(CLEAN, threshold_spread=0.03))
    counts = np.bincount(events["x"], minlength=4000)
    thresholds = 0.2 + 0.03 * np.random.default_rng(0).standard_normal((2, 1, 4000), dtype=np.float32)[0, 0]
    assert (counts == np.floor(2.0 / thresholds)).mean() > 0.999  # all but a rounding tie
    assert counts.std() > 1


def test_equal_seeds_give_equal_events_in_order_of_time():
    frames = np.random.default_rng(0).integers(0, 256, (6, 24, 32), dtype=np.uint8)
    runs = [
        simulate_events(frames, np.arange(6) * 1e4, EventCameraParams(), np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert len(runs[0]) != len(runs[2]) or (runs[0] != runs[2]).any()
    assert (np.diff(runs[0]["t"]) >= 0).all()
    assert runs[0]["x"].max() == 31
    assert runs[0]["y"].max() == 23


def test_streaming_equals_the_whole_sequence():
    frames = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    camera = EventCamera(rng=np.random.default_rng(5))
    parts = [camera.push(frame, 1e4 * i) for i, frame in enumerate(frames)]
    np.testing.assert_array_equal(
        np.concatenate(parts), simulate_events(frames, np.arange(5) * 1e4, rng=np.random.default_rng(5))
    )


def test_lin_log_is_continuous_rising_and_logarithmic_in_the_light():
    values = np.linspace(0, 255, 1000)
    mapped = lin_log(values, 20)
    assert mapped[0] == 0
    assert (np.diff(mapped) > 0).all()
    assert np.diff(mapped).max() < 0.05
    np.testing.assert_allclose(mapped[values > 20], np.log(values[values > 20]), rtol=1e-6)


def test_event_frames_show_the_latest_polarity_of_each_window():
    events = np.array(
        [(0, 0, 0, 1), (5, 0, 0, 0), (9, 2, 1, 1), (10, 0, 0, 1), (19, 1, 1, 0), (20, 1, 0, 1), (25, 1, 0, 1)],
        EVENT_DTYPE,
    )
    images = event_frames(events, np.array([0, 10, 20]), (2, 3))
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[0], [[0, 127, 127], [127, 127, 255]])
    np.testing.assert_array_equal(images[1], [[255, 127, 127], [127, 0, 127]])


def test_bad_input_is_named():
    with pytest.raises(DataError, match="sort the frames"):
        simulate_events(np.ones((2, 4, 4)), [10, 10])
    with pytest.raises(DataError, match="one time a frame"):
        simulate_events(np.ones((2, 4, 4)), [10])
    with pytest.raises(DataError, match="resize"):
        simulate_events([np.ones((4, 4)), np.ones((4, 5))], [0, 10])


def make_video(path, frames):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        container.mux(stream.encode())


def test_video_becomes_grey_frames_with_times_and_upsamples(tmp_path):
    x = np.arange(64)
    bars = [np.tile(128 + 100 * np.sin((x - 3 * i) / 5), (48, 1)).astype(np.uint8) for i in range(8)]
    make_video(tmp_path / "bars.mp4", np.stack(bars))
    decoded = list(frames_from_video(tmp_path / "bars.mp4"))
    assert [time for _, time in decoded] == pytest.approx([40_000 * i for i in range(8)])
    assert np.abs(decoded[3][0].astype(float) - bars[3]).mean() < 8
    fine = list(frames_from_video(tmp_path / "bars.mp4", upsample_fps=100))
    steps = np.diff([time for _, time in fine])
    np.testing.assert_allclose(steps, 10_000)
    assert len(fine) > 20
    assert fine[0][0].shape == (48, 64)


def test_missing_and_corrupt_videos_are_named(tmp_path):
    import av

    with pytest.raises(DataError, match="none.mp4: no such video"):
        next(frames_from_video(tmp_path / "none.mp4"))
    (tmp_path / "bad.mp4").write_bytes(b"not a video at all" * 100)
    with pytest.raises(DataError, match=r"bad.mp4: cannot be decoded"):
        next(frames_from_video(tmp_path / "bad.mp4"))
    with av.open(str(tmp_path / "raw.h264"), "w") as container:  # pictures alone, without a container's times
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for packet in [*stream.encode(av.VideoFrame(64, 48, "yuv420p")), *stream.encode()]:
            container.mux(packet)
    with pytest.raises(DataError, match=r"raw.h264: has no time stamps; re-encode it"):
        next(frames_from_video(tmp_path / "raw.h264"))
