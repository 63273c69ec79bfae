"""Recordings to samples: whole, or cut into windows, as frames of event counts."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdsnn_lightning.data.aedat import SENSOR
from sdsnn_lightning.data.event_frames import Resize, count_bounds, duration_bounds, pixel_map, sum_events
from sdsnn_lightning.data.event_recordings import read_recording
from sdsnn_lightning.errors import DataError


class FrameRule(NamedTuple):
    """How recordings become samples; part of a cache's name.

    Attributes:
        steps: Frames of a sample, T.
        frames_by: Frames of equally many events (`count`) or of equal duration (`duration`).
        size: Height and width of a frame.
        resize: See `pixel_map`.
        window_us: Cuts a recording into windows of this many microseconds; 0 does not.
        window_events: Cuts it into windows of this many events; 0 does not.
        transpose: Swap rows and columns.
        sort: Sort events that are out of order.
    """

    steps: int
    frames_by: Literal["count", "duration"] = "count"
    size: int = 48
    resize: Resize = "nearest"
    window_us: int = 0
    window_events: int = 0
    transpose: bool = False
    sort: bool = False


class Cut(NamedTuple):
    """The samples of one recording.

    Attributes:
        frames: Counts, uint8 `[samples, T, 2, S, S]`; a count stops at 255.
        skipped: Windows left out because they hold fewer events than frames.
        clipped: Counts that were above 255.
    """

    frames: NDArray[np.uint8]
    skipped: int
    clipped: int


def cut_recording(path: Path, rule: FrameRule) -> Cut:
    """Reads a recording and makes its samples.

    Windows follow each other without overlap, and what is left over at the end is dropped.

    Args:
        path: The recording.
        rule: How to cut it.

    Returns:
        Its samples, at least one.

    Raises:
        DataError: If the recording is broken, shorter than a window, or has fewer events than frames.
    """
    events = read_recording(path, rule.sort)
    times = np.ascontiguousarray(events["t"])
    windows: list[tuple[int, int, int | None, int | None]] = [(0, len(events), None, None)]  # events, and times
    if rule.window_us:
        count = (int(times[-1]) - int(times[0]) + 1) // rule.window_us
        edges = int(times[0]) + np.arange(count + 1) * rule.window_us
        first = np.searchsorted(times, edges)
        windows = [(int(first[k]), int(first[k + 1]), int(edges[k]), int(edges[k + 1])) for k in range(count)]
    elif rule.window_events:
        n = rule.window_events
        windows = [(k * n, (k + 1) * n, None, None) for k in range(len(events) // n)]
    if not windows:
        raise DataError(
            f"{path} has {len(events)} events in {(times[-1] - times[0]) / 1000:.0f} ms, less than a window; "
            "lower data.init_args.window_ms or window_events, or take the file out"
        )
    kept = [window for window in windows if window[1] - window[0] >= rule.steps]
    if not kept:
        raise DataError(
            f"{path} has {max(b - a for a, b, _, _ in windows)} events, fewer than {rule.steps} frames; "
            "lower data.init_args.steps (or teacher_steps), or take the file out"
        )
    axis = pixel_map(SENSOR, rule.size, rule.resize)
    frames = np.empty((len(kept), rule.steps, 2, rule.size, rule.size), np.uint8)
    clipped = 0
    for k, (begin, end, start, stop) in enumerate(kept):
        if rule.frames_by == "count":
            bounds = count_bounds(end - begin, rule.steps)
        else:
            bounds = duration_bounds(times[begin:end], rule.steps, start, stop)
        counts = sum_events(events[begin:end], bounds, axis, axis)
        clipped += int((counts > 255).sum())
        frames[k] = np.minimum(counts, 255)
    if rule.transpose:
        frames = np.ascontiguousarray(frames.swapaxes(-1, -2))
    return Cut(frames, len(windows) - len(kept), clipped)
