"""The video that shows its answers: every frame there, at its time, with what was known then."""

import numpy as np
import pytest
from PIL import Image
from places import SHARED

from sdsnn_lightning.annotated_video import Answer, annotate_video, draw_panel, read_answers
from sdsnn_lightning.data.video_windows import VideoWindows
from sdsnn_lightning.errors import DataError

EYE = SHARED / "near_eye_video/eye_320x240_25fps.mp4"
NAMES = ["anger", "fear", "joy"]
FIRST, SECOND = np.array([0.1, 0.7, 0.2]), np.array([0.9, 0.0, 0.1])


def write_video(path, count=40, rate=25, height=48, width=64):
    """Frame k is grey 5 k."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for k in range(count):
            image = np.full((height, width), 5 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "gray").reformat(format="yuv420p")))
        container.mux(stream.encode())
    return path


def decode(path):
    """Frames uint8 `[N, H, W]`, their times in seconds, and the rate that the file states."""
    import av

    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        rate = container.streams.video[0].average_rate
    return np.stack([frame.to_ndarray(format="gray") for frame in frames]), [frame.time for frame in frames], rate


def shown(picture, panels):
    """Which of some panels is nearest to the right of a picture."""
    return int(np.argmin([np.abs(picture[:, -panel.shape[1] :] - panel).mean() for panel in panels]))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_every_frame_shows_the_answer_known_at_its_time(tmp_path, codec):
    windows = VideoWindows(write_video(tmp_path / "v.mp4"), size=16)
    answers = iter([Answer(0.4, FIRST), Answer(0.8, SECOND)])
    annotate_video(windows, answers, NAMES, tmp_path / "out.mp4", codec)
    frames, times, rate = decode(tmp_path / "out.mp4")
    # 48 rows grow eightfold, beyond 360; the letters are 384 / 24 pixels and the panel 16 letters wide
    assert frames.shape == (40, 384, 64 * 8 + 16 * 16)
    assert times == pytest.approx([k / 25 for k in range(40)], abs=2e-5)
    assert rate == 25
    assert frames[:, 100:300, 200:300].mean((1, 2)) == pytest.approx([5 * k for k in range(40)], abs=3)
    panels = [np.asarray(draw_panel(NAMES, shares, 384).convert("L"), float) for shares in (None, FIRST, SECOND)]
    assert [shown(frame, panels) for frame in frames] == [0] * 10 + [1] * 10 + [2] * 20
    assert [path.name for path in tmp_path.iterdir() if path.name != "v.mp4"] == ["out.mp4"]


def test_the_square_that_the_network_sees_has_a_border(tmp_path):
    windows = VideoWindows(write_video(tmp_path / "v.mp4", count=20), size=16, eye_box=(20, 10, 30))
    annotate_video(windows, [], NAMES, tmp_path / "out.mp4")
    last = decode(tmp_path / "out.mp4")[0][-1].astype(float)  # grey 95
    row = last[200]  # the border stands at 8 * 20 and 8 * (20 + 30): black without, white within
    assert row[161:163].max() > 140
    assert row[397:399].max() > 140
    assert row[100:150].max() < 105
    assert row[200:380].max() < 105


def test_images_of_odd_size(tmp_path):
    (tmp_path / "eye").mkdir()
    for k in range(15):
        Image.fromarray(np.full((361, 63), 10 * k, np.uint8)).save(tmp_path / f"eye/{k}.png")
    annotate_video(VideoWindows(tmp_path / "eye"), [Answer(0.4, FIRST)], NAMES, tmp_path / "out.mp4")
    frames, times, rate = decode(tmp_path / "out.mp4")
    assert frames.shape == (15, 362, 63 + 16 * 15 + 1)
    assert times == pytest.approx([k / 30 for k in range(15)], abs=2e-5)
    assert rate == 30


def test_answers_come_from_the_table(tmp_path):
    (tmp_path / "predictions.csv").write_text(
        "start_s,end_s,prediction,anger,fear,joy,confidence\n0.000,0.433,fear,0.1,0.7,0.2,0.7\n"
        "0.200,0.633,anger,0.9,0,0.1,0.9\n"
    )
    first, second = read_answers(tmp_path / "predictions.csv")
    assert first.known == pytest.approx(0.4, abs=1e-3)  # a window of 13 images ends with image 12, at 30 a second
    assert second.known == pytest.approx(0.6, abs=1e-3)
    assert first.shares.tolist() == FIRST.tolist()


def test_a_panel_of_many_classes_shows_the_likeliest():
    names = [f"a rather long name of the class {k}" for k in range(200)]
    shares = np.zeros(200)
    shares[150] = 1
    panel = np.asarray(draw_panel(names, shares, 360).convert("L"))
    assert panel.shape == (360, 16 * 15)
    # letters of 15: the rows begin at 7 + 38 and are 24 high; the bar of the likeliest is the first, and full
    assert (panel[45 + 8, 120:170] == 255).all()
    assert (panel[45 + 24 + 8, 120:170] == 0).all()
    assert panel[:, -3:].max() == 0  # nothing is cut off at the edge


def test_a_broken_video_leaves_no_file(tmp_path):
    path = write_video(tmp_path / "v.mp4")
    windows = VideoWindows(path, size=16)
    path.write_bytes(b"what is this")
    with pytest.raises(DataError, match=r"v\.mp4: cannot be decoded"):
        annotate_video(windows, [Answer(0.4, FIRST)], NAMES, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.skipif(not EYE.is_file(), reason="no recording; set SDSNN_SHARED to the folder with near_eye_video/")
def test_the_beginning_of_a_real_recording(tmp_path):
    import av

    with av.open(str(EYE)) as source, av.open(str(tmp_path / "eye.mp4"), "w") as short:
        stream = short.add_stream_from_template(source.streams.video[0])
        for k, packet in enumerate(source.demux(video=0)):
            if k < 60 and packet.dts is not None:
                packet.stream = stream
                short.mux(packet)
    before, times, rate = decode(tmp_path / "eye.mp4")
    windows = VideoWindows(tmp_path / "eye.mp4")
    annotate_video(windows, [Answer(0.4, FIRST)], NAMES, tmp_path / "out.mp4")
    frames, new_times, new_rate = decode(tmp_path / "out.mp4")
    assert frames.shape == (len(before), 480, 640 + 320)
    assert new_times == pytest.approx(times, abs=2e-5)
    assert float(new_rate) == pytest.approx(float(rate), rel=0.03)  # of its last frames some are missing
    # the middle of the picture is the recording, twice as large
    assert np.abs(frames[30, 100:380:2, 200:440:2].astype(float) - before[30, 50:190, 100:220]).mean() < 6
