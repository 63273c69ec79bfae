import os
import pickle
import threading

import numpy as np
import pytest
from filelock import FileLock

from sdsnn_lightning.data.aedat import write_aedat
from sdsnn_lightning.data.event_cache import EventFrames, EventSamples, build_event_frames, event_cache_file
from sdsnn_lightning.data.event_windows import FrameRule, cut_recording
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE


def write(path, times, seed=0):
    rng = np.random.default_rng(seed)
    events = np.empty(len(times), EVENT_DTYPE)
    events["t"] = times
    events["x"], events["y"], events["p"] = (rng.integers(0, n, len(times)) for n in (128, 128, 2))
    write_aedat(path, events)
    return events


def test_whole_recordings_and_windows(tmp_path):
    path = tmp_path / "a.aedat"
    events = write(path, 1000 + 10 * np.arange(1000))  # lasts 9991 us
    whole = cut_recording(path, FrameRule(4, size=128))
    assert whole.frames.shape == (1, 4, 2, 128, 128)
    assert whole.frames.sum((2, 3, 4)).tolist() == [[250] * 4]
    timed = cut_recording(path, FrameRule(2, "duration", 128, window_us=3000))
    assert timed.frames.sum((2, 3, 4)).tolist() == [[150, 150]] * 3  # the rest is dropped
    counted = cut_recording(path, FrameRule(2, size=32, resize="sum", window_events=300))
    assert counted.frames.sum((2, 3, 4)).tolist() == [[150, 150]] * 3
    turned = cut_recording(path, FrameRule(4, size=128, transpose=True))
    assert (turned.frames == whole.frames.swapaxes(-1, -2)).all()
    first = events[:250]
    expected = np.zeros((2, 128, 128), int)
    np.add.at(expected, (first["p"], first["y"], first["x"]), 1)
    assert (whole.frames[0, 0] == expected).all()


def test_sparse_windows_are_left_out_and_counts_stop_at_255(tmp_path):
    path = tmp_path / "a.aedat"
    write(path, [0, 10, 20, 30, 1500, 2000, 2010, 2020, 2030, 3001])
    cut = cut_recording(path, FrameRule(4, window_us=1000, resize="sum"))
    assert (len(cut.frames), cut.skipped) == (2, 1)
    events = np.zeros(600, EVENT_DTYPE)
    write_aedat(path, events)
    cut = cut_recording(path, FrameRule(2))
    assert cut.frames.max() == 255
    assert cut.clipped == 2


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (FrameRule(11), r"has 10 events, fewer than 11 frames; lower data.init_args.steps"),
        (FrameRule(5, window_us=40), r"has 4 events, fewer than 5 frames"),
        (FrameRule(1, window_us=1000), r"has 10 events in 0 ms, less than a window; lower data.init_args.window_ms"),
        (FrameRule(1, window_events=11), r"less than a window"),
    ],
)
def test_too_short_recordings_are_named(tmp_path, rule, message):
    write(tmp_path / "a.aedat", 10 * np.arange(10))
    with pytest.raises(DataError, match=message) as error:
        cut_recording(tmp_path / "a.aedat", rule)
    assert "a.aedat" in str(error.value)


def make_set(root, recordings=5):
    files = [f"{k}.aedat" for k in range(recordings)]
    for k, file in enumerate(files):
        write(root / file, 7 * np.arange(1000 * (k + 1)), k)
    return files


def test_a_cache_holds_what_the_files_hold(tmp_path):
    files, rule = make_set(tmp_path), FrameRule(4, window_us=6500)
    cache = EventFrames(build_event_frames(tmp_path, files, rule))
    assert cache.path.parent == tmp_path / ".cache"
    assert cache.recording.tolist() == [0] + [1] * 2 + [2] * 3 + [3] * 4 + [4] * 5  # recording k lasts 7 (k + 1) ms
    for k, file in enumerate(files):
        assert (cache.frames[cache.recording == k] == cut_recording(tmp_path / file, rule).frames).all()
    again = pickle.loads(pickle.dumps(cache))
    assert (again.frames == cache.frames).all()
    assert len(pickle.dumps(cache)) < 500
    part = EventSamples(cache, np.array([3, 1]), np.array([1, 0]))
    assert len(part) == 2
    assert part[0]["target"] == 1
    assert (part[1]["events"].numpy() == cache.frames[1]).all()


def test_a_cache_is_built_once_and_again_for_another_file_or_rule(tmp_path):
    files, rule = make_set(tmp_path, 2), FrameRule(4)
    cache = build_event_frames(tmp_path, files, rule, tmp_path / "elsewhere")
    written = cache.stat().st_mtime_ns
    assert build_event_frames(tmp_path, files, rule, tmp_path / "elsewhere") == cache
    assert cache.stat().st_mtime_ns == written
    for other in (FrameRule(8), FrameRule(4, "duration"), FrameRule(4, transpose=True), FrameRule(4, resize="sum")):
        assert event_cache_file(tmp_path, files, other, tmp_path / "elsewhere") != cache
    os.utime(tmp_path / files[0], ns=(0, 12345))
    assert event_cache_file(tmp_path, files, rule, tmp_path / "elsewhere") != cache


def test_a_broken_recording_leaves_no_cache(tmp_path):
    files = make_set(tmp_path, 3)
    broken = tmp_path / files[1]
    broken.write_bytes(broken.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"1\.aedat breaks off"):
        build_event_frames(tmp_path, files, FrameRule(4))
    assert [p.name for p in (tmp_path / ".cache").iterdir() if not p.name.endswith(".lock")] == []
    broken.unlink()
    with pytest.raises(DataError, match=r"1\.aedat is missing"):
        build_event_frames(tmp_path, files, FrameRule(4))


def test_an_absent_or_damaged_cache_is_named(tmp_path):
    files, rule = make_set(tmp_path, 2), FrameRule(2, size=16)
    with pytest.raises(DataError, match="prepare_data"):
        EventFrames(event_cache_file(tmp_path, files, rule))
    cache = build_event_frames(tmp_path, files, rule)
    whole = cache.read_bytes()
    for length in (0, 5, 500, len(whole) - 8, len(whole) - 1):
        cache.write_bytes(whole[:length])
        with pytest.raises(DataError, match="is damaged .* delete the file"):
            EventFrames(cache)


def test_a_cache_that_cannot_be_written(tmp_path):
    files = make_set(tmp_path, 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cache_dir to another folder"):
        build_event_frames(tmp_path, files, FrameRule(4), tmp_path / "file" / "cache")


def test_one_process_builds(tmp_path):
    files, rule = make_set(tmp_path, 1), FrameRule(4)
    cache = event_cache_file(tmp_path, files, rule)
    cache.parent.mkdir()
    with FileLock(cache.with_name(f".{cache.name}.lock")):
        thread = threading.Thread(target=build_event_frames, args=(tmp_path, files, rule))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert not cache.exists()
        cache.write_bytes(b"built by the other")
    thread.join(10)
    assert cache.read_bytes() == b"built by the other"
