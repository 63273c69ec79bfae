"""The closed loop: the way, the light and the events by hand."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.simulate.closed_loop import SENSOR, ClosedLoop, Job, make_recordings, move, record_image, show
from sdsnn_lightning.simulate.event_camera import CLEAN, EVENT_DTYPE


def bar(left=12, right=20, size=32, ground=60, height=200):
    image = np.full((size, size), ground, np.uint8)
    image[:, left:right] = height
    return Image.fromarray(image)


def png(image):
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_the_way_is_a_square_on_its_corner_six_times_in_1_2_seconds():
    setup = ClosedLoop()
    places, times = setup.positions()
    assert setup.seconds == pytest.approx(1.2)
    assert len(places) == len(times) == 73  # 1.2 s at 60 Hz and the first moment
    assert times[1] == pytest.approx(1e6 / 60)
    assert times[-1] == pytest.approx(1.2e6)
    # three refreshes a path of 50 ms: thirds of 10 pixels, in whole pixels
    assert places[:13].tolist() == [
        [-10, 0], [-7, -3], [-3, -7], [0, -10], [3, -7], [7, -3], [10, 0],
        [7, 3], [3, 7], [0, 10], [-3, 7], [-7, 3], [-10, 0],
    ]  # fmt: skip
    assert (places[12:25] == places[:13]).all()
    assert np.abs(places[:12].mean(0)).max() == 0  # the image stands in the middle on average


def test_other_speeds_and_rates_keep_the_loop_closed():
    places, times = ClosedLoop(loops=2, path_pixels=7, speed=91.0, refresh_hz=144.0).positions()
    assert times[-1] == pytest.approx(8 * 7 / 91 * 1e6, abs=1e6 / 144)
    assert np.abs(places).sum(1).max() <= 8  # |x| + |y| = 7 on the square, half a pixel of rounding on each axis
    assert np.abs(places).sum(1).min() >= 6


def test_luminance_follows_gamma_and_black_level():
    levels = np.repeat(np.array([[0, 128, 255]], np.uint8), 3, 0)
    shown = show(Image.fromarray(levels).resize((48, 48), Image.Resampling.NEAREST), ClosedLoop())
    assert shown.shape == (512, 512)
    assert shown.dtype == np.float32
    assert shown[256, 8] == pytest.approx(255 * 0.02)
    assert shown[256, 256] == pytest.approx(255 * (0.02 + 0.98 * (128 / 255) ** 2.2), rel=1e-6)
    assert shown[256, -8] == pytest.approx(255)


def test_the_middle_square_of_a_wide_image_is_shown():
    wide = Image.new("RGB", (96, 32))
    wide.paste((255, 255, 255), (32, 0, 64, 32))
    assert show(wide, ClosedLoop())[:, 100:-100].min() == pytest.approx(255)


def test_a_sensor_pixel_takes_the_mean_of_its_display_pixels_wherever_the_image_is():
    setup = ClosedLoop(loops=1, display_size=64, sensor_size=16, path_pixels=5)
    light = np.random.default_rng(0).uniform(1, 255, (64, 64)).astype(np.float32)
    frames, times = move(light, setup)
    places, _ = setup.positions()
    assert len(frames) == len(times) == len(places)
    x, y = places[4]
    assert (x, y) != (0, 0)
    row, column = 9, 3  # far from the border; the image moved by (x, y), so its pixel (u, v) is seen at (u + x, v + y)
    block = light[4 * row - y : 4 * row - y + 4, 4 * column - x : 4 * column - x + 4]
    assert frames[4][row, column] == pytest.approx(block.mean(), rel=1e-6)
    assert frames[0] is frames[-1]  # a place seen again is computed once


def test_beyond_the_border_the_image_goes_on():
    frames, _ = move(np.tile(np.linspace(10, 250, 512, dtype=np.float32), (512, 1)), ClosedLoop(loops=1))
    right = np.stack(frames)[:, :, -1]
    assert right.max() <= 250 * (1 + 1e-6)
    assert right.min() > 240


def test_a_bar_fires_on_before_it_and_off_behind_it():
    setup = ClosedLoop(loops=1)
    events = record_image(bar(), setup, CLEAN)
    assert events.dtype == EVENT_DTYPE
    assert (np.diff(events["t"]) >= 0).all()
    right, left = events["x"] > 72, events["x"] < 56  # the bar's edges lie at 4 * 20 = 80 and 4 * 12 = 48
    assert right.sum() + left.sum() == len(events)
    going_right = events["t"] < 100_000  # the first two of the four paths
    brighter = [events["p"][side & way].mean() for side in (right, left) for way in (going_right, ~going_right)]
    assert brighter == pytest.approx([1, 0, 0, 1], abs=0.1)  # bicubic enlargement rings a little beside an edge
    assert set(events["y"]) == set(range(128))


def test_an_even_image_gives_nothing_but_noise():
    grey = Image.new("L", (32, 32), 128)
    assert len(record_image(grey, ClosedLoop(loops=1), CLEAN)) == 0
    noise = record_image(grey, ClosedLoop(loops=6))
    rate = 1 - 0.75 * (0.02 + 0.98 * (128 / 255) ** 2.2)  # shot noise at this luminance, and 0.1 leaks a second
    assert len(noise) == pytest.approx(128 * 128 * 1.2 * (rate + 0.1), rel=0.05)


def test_recordings_depend_on_their_seed_alone(tmp_path):
    jobs = [Job(png(bar(4 + k, 12 + k)), f"bar {k}", tmp_path / f"{k}.aedat", (0, k)) for k in range(5)]
    setup = ClosedLoop(loops=1)
    runs = [
        {job.path.stem: events for job, events in make_recordings(iter(jobs), setup, workers=workers)}
        for workers in (1, 2)
    ]
    assert set(runs[0]) == set(runs[1]) == set("01234")
    assert all(np.array_equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not np.array_equal(runs[0]["0"], record_image(bar(4, 12), setup, rng=np.random.default_rng(9)))


def test_bad_images_and_settings_are_named(tmp_path):
    whole = png(bar())
    deep = png(Image.fromarray(np.full((8, 8), 300, np.uint16)))
    for content, reason in (
        (b"GIF89a?", "it is none, or damaged"), (whole[:-40], "truncated"), (deep, "more than 8 bits")
    ):  # fmt: skip
        with pytest.raises(DataError, match=f"cat/7.png cannot be read as an image .*{reason}"):
            list(make_recordings([Job(content, "cat/7.png", tmp_path, (0,))], workers=1))
    even = Job(png(Image.new("L", (8, 8), 200)), "even.png", tmp_path, (0,))
    with pytest.raises(DataError, match=r"even\.png gives no event"):
        list(make_recordings([even], ClosedLoop(loops=1), replace(CLEAN, linear_below=1.0), workers=1))
    for wrong, name in (({"loops": 0}, "loops"), ({"black": 0.0}, "black"), ({"display_size": 500}, "display_size")):
        with pytest.raises(ConfigError, match=name):
            ClosedLoop(**wrong)
    assert SENSOR.linear_below == 1.0
