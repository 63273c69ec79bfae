"""Windows of a video: the right frames at the right times, and one line for what cannot be read."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from places import SHARED

from sdsnn_lightning.data.eye_video import EyeVideo
from sdsnn_lightning.data.single_eye import FRAME_MEAN, FRAME_STD
from sdsnn_lightning.data.video_files import look_at
from sdsnn_lightning.data.video_windows import VideoWindows, find_square, resample
from sdsnn_lightning.errors import ConfigError, DataError

EYE = SHARED / "near_eye_video/eye_320x240_25fps.mp4"


def write_video(path, count=40, fps=25, height=48, width=64):
    """A lossless mp4 whose frame k is grey 5 k."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"qp": "0"}
        stream.time_base = Fraction(1, fps)
        for k in range(count):
            image = np.full((height, width), 5 * k, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def grey(sample):
    """Which source frame each step of a window is."""
    return (sample["frames"].float().mean((1, 2, 3)) / 5).round().int().tolist()


def test_resample_takes_the_nearest_frame():
    frames = [(np.full((2, 2), k), k * 40_000.0) for k in range(6)]  # 25 a second, last at 0.2 s
    assert [int(frame[0, 0]) for frame in resample(iter(frames), 30)] == [
        0,
        1,
        2,
        3,
        3,
        4,
        5,
    ]  # of two equally near the later
    frames = [(np.full((2, 2), k), 1e6 + k * 200_000.0) for k in range(3)]  # 5 a second, starting late
    assert [int(f[0, 0]) for f in resample(iter(frames), 30)] == [0] * 3 + [1] * 6 + [2] * 4


def test_windows_of_a_generated_video(tmp_path):
    windows = VideoWindows(write_video(tmp_path / "v.mp4"), size=16, steps=4, skip=3, hop=6)
    samples = list(windows)
    # 40 frames at 25/s: the last is at 1.56 s, so 47 images at 30/s, and a window covers 13
    assert windows.images == 47
    assert len(windows) == len(samples) == (47 - 13) // 6 + 1
    assert [sample["window"] for sample in samples] == [0, 6, 12, 18, 24, 30]
    assert samples[0]["frames"].shape == (4, 1, 16, 16)
    assert samples[0]["frames"].dtype == torch.uint8
    for sample in samples:
        steps = [sample["window"] + 4 * step for step in range(4)]
        assert grey(sample) == pytest.approx([25 * step / 30 for step in steps], abs=0.51)
    assert windows.seconds(6) == pytest.approx((0.2, 19 / 30))


def test_find_square():
    assert find_square((48, 64), None, Path("v")) == (8, 0, 48)
    assert find_square((64, 48), None, Path("v")) == (0, 8, 48)
    assert find_square((48, 64), (3, 2, 10), Path("v")) == (3, 2, 10)
    with pytest.raises(DataError, match=r"eye_box \[60, 0, 10\] leaves the 64x48 frame"):
        find_square((48, 64), (60, 0, 10), Path("v"))


def test_simulated_events_follow_brightness(tmp_path):
    windows = VideoWindows(write_video(tmp_path / "v.mp4"), size=8, steps=4, skip=0, hop=9, simulate_events=True)
    samples = list(windows)
    assert samples[0]["events"].shape == (4, 1, 8, 8)
    assert (samples[0]["events"][0] == 127).all()  # nothing comes before the first image
    later = torch.cat([sample["events"] for sample in samples])
    assert (later == 255).sum() > 20 * (later == 0).sum()  # the video only gets brighter; noise is rare


def test_module_normalises_as_single_eye_and_keeps_the_window(tmp_path):
    module = EyeVideo(str(write_video(tmp_path / "v.mp4")), size=16, channels=3, hop=20, batch_size=2)
    module.setup("predict")
    batches = [module.on_after_batch_transfer(batch, 0) for batch in module.predict_dataloader()]
    assert [batch.groups["window"].tolist() for batch in batches] == [[0, 20]]
    frames = batches[0].student["frames"]
    assert frames.shape == (2, 4, 3, 16, 16)
    expected = (25 / 255 * 2 - FRAME_MEAN) / FRAME_STD  # image 12 at 30/s is source frame 10, grey 50
    assert frames[0, 3].mean().item() == pytest.approx(expected, abs=0.02)
    assert module.num_classes == 7
    assert module.data_source == "real"


def test_what_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(DataError, match="no such video"):
        look_at(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(DataError, match="text.mp4: is not a video"):
        look_at(tmp_path / "text.mp4")
    short = write_video(tmp_path / "short.mp4", count=10)
    with pytest.raises(DataError, match="11 images at 30 a second are shorter than a window of 13"):
        VideoWindows(short)
    with pytest.raises(DataError, match="leaves the 64x48 frame"):
        VideoWindows(short, steps=2, eye_box=(40, 0, 48))
    with pytest.raises(ConfigError, match="no labels to fit with"):
        EyeVideo(str(short)).setup("fit")
    with pytest.raises(ConfigError, match="hop is 0"):
        EyeVideo(str(short), hop=0)


@pytest.mark.skipif(not EYE.is_file(), reason="no recording; set SDSNN_SHARED to the folder with near_eye_video/")
def test_real_recording():
    windows = VideoWindows(EYE, hop=60)
    samples = list(windows)
    assert windows.images == 1334  # 1,112 frames at 25/s end at 44.44 s
    assert len(samples) == len(windows) == 23
    means = torch.stack([sample["frames"].float().mean() for sample in samples])
    assert 40 < means.min() < means.max() < 200
