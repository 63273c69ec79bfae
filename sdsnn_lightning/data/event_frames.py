"""Events to frames: counts by equal numbers of events or by equal durations, and voxel grids.

All frames are `[T, 2, H, W]`: channel 0 counts events of polarity 0 (darker, OFF), channel 1 those of polarity 1
(brighter, ON).
"""

from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sdsnn_lightning.compiled import compile_loop
from sdsnn_lightning.errors import DataError

Resize = Literal["nearest", "sum"]


def count_bounds(events: int, steps: int) -> NDArray[np.int64]:
    """Cuts events into frames of equally many; the last frame also takes the remainder.

    The convention of spikingjelly's `split_by='number'`, with which BKDSNN's CIFAR10-DVS code reads its recordings:
    `events // steps` a frame.

    Args:
        events: Number of events N.
        steps: Number of frames T.

    Returns:
        First event of every frame and N, int64 `[T + 1]`.
    """
    bounds = np.arange(steps + 1, dtype=np.int64) * (events // steps)
    bounds[-1] = events
    return bounds


def duration_bounds(
    times: NDArray[np.int64], steps: int, start: int | None = None, stop: int | None = None
) -> NDArray[np.int64]:
    """Cuts events into frames of equal duration.

    Without `stop` this is the convention of spikingjelly's `split_by='time'`: whole microseconds
    `(last - first) // steps` a frame, and the last frame also takes what is left over, at least the last event.

    Args:
        times: Microseconds, in order, int64 `[N]`, N above 0.
        steps: Number of frames T.
        start: Where the first frame begins, in microseconds; at the first event by default. Earlier events are left
            out.
        stop: Where the last frame ends, exclusive. Later events are left out. By default it takes all.

    Returns:
        First event of every frame and the end of the last one, int64 `[T + 1]`.
    """
    begin = int(times[0]) if start is None else start
    if stop is None:
        edges = begin + np.arange(steps + 1, dtype=np.int64) * ((int(times[-1]) - begin) // steps)
        edges[-1] = int(times[-1]) + 1
    else:
        edges = begin + np.arange(steps + 1, dtype=np.int64) * (stop - begin) // steps
    return np.searchsorted(times, edges).astype(np.int64)


def pixel_map(sensor: int, size: int, resize: Resize = "nearest") -> NDArray[np.int16]:
    """Where each column (or row) of the sensor goes in a smaller frame.

    Args:
        sensor: Pixels of the sensor along the axis.
        size: Pixels of the frame, at most as many.
        resize: `nearest` keeps `size` of the sensor's columns, `floor(k * sensor / size)`, and drops the events of the
            others, as resizing frames with nearest-neighbour interpolation does; `sum` adds neighbouring columns up
            and drops nothing.

    Returns:
        Index in the frame, int16 `[sensor]`; -1 where events are dropped.
    """
    if resize == "sum":
        return (np.arange(sensor) * size // sensor).astype(np.int16)
    kept = np.full(sensor, -1, np.int16)
    kept[np.arange(size) * sensor // size] = np.arange(size)
    return kept


def sum_events(
    events: NDArray[np.void], bounds: NDArray[np.int64], columns: NDArray[np.int16], rows: NDArray[np.int16]
) -> NDArray[np.uint16]:
    """Counts events into frames, in one compiled pass.

    Args:
        events: Fields x, y and p (above 0: brighter).
        bounds: First event of every frame and the end of the last, int64 `[T + 1]`, rising.
        columns: See `pixel_map`, for x.
        rows: The same for y.

    Returns:
        uint16 `[T, 2, H, W]`, H and W one more than the maps' highest; a count stops at 65535.

    Raises:
        DataError: If an event lies outside the maps.
    """
    frames = np.zeros((len(bounds) - 1, 2, int(rows.max()) + 1, int(columns.max()) + 1), np.uint16)
    outside = _kernel()(events["x"], events["y"], events["p"], np.asarray(bounds, np.int64), columns, rows, frames)
    if outside >= 0:
        raise _outside(events, outside, len(columns), len(rows))
    return frames


def _outside(events: NDArray[np.void], number: int, width: int, height: int) -> DataError:
    """Names an event that no pixel can have sent."""
    x, y = int(events["x"][number]), int(events["y"][number])
    return DataError(f"event {number} at x {x}, y {y} is outside the {width}x{height} sensor; give its true size")


@cache
def _kernel() -> Any:
    """Compiles the loop over events on first use."""

    def count(x, y, p, bounds, columns, rows, frames):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        for step in range(len(bounds) - 1):
            for i in range(bounds[step], bounds[step + 1]):
                if not (0 <= x[i] < columns.size and 0 <= y[i] < rows.size):
                    return i
                column, row = columns[x[i]], rows[y[i]]
                if column >= 0 and row >= 0:
                    polarity = 1 if p[i] > 0 else 0
                    if frames[step, polarity, row, column] < 65535:
                        frames[step, polarity, row, column] += 1
        return -1

    return compile_loop(count)


def frames_by_count(events: NDArray[np.void], steps: int, size: tuple[int, int] = (128, 128)) -> NDArray[np.uint16]:
    """Frames of equally many events; see `count_bounds`.

    Args:
        events: Fields t, x, y, p, in order of time.
        steps: Number of frames T.
        size: Height and width of the sensor.

    Returns:
        Counts, uint16 `[T, 2, H, W]`.

    Raises:
        DataError: If an event lies outside the sensor.
    """
    height, width = size
    maps = pixel_map(width, width), pixel_map(height, height)
    return sum_events(events, count_bounds(len(events), steps), *maps)


def frames_by_duration(
    events: NDArray[np.void],
    steps: int,
    size: tuple[int, int] = (128, 128),
    start: int | None = None,
    stop: int | None = None,
) -> NDArray[np.uint16]:
    """Frames of equal duration; see `duration_bounds`.

    Args:
        events: Fields t, x, y, p, in order of time; at least one.
        steps: Number of frames T.
        size: Height and width of the sensor.
        start: Where the first frame begins, in microseconds.
        stop: Where the last frame ends, in microseconds.

    Returns:
        Counts, uint16 `[T, 2, H, W]`.

    Raises:
        DataError: If an event lies outside the sensor.
    """
    height, width = size
    maps = pixel_map(width, width), pixel_map(height, height)
    bounds = duration_bounds(np.ascontiguousarray(events["t"]), steps, start, stop)
    return sum_events(events, bounds, *maps)


def voxel_grid(
    events: NDArray[np.void], bins: int, size: tuple[int, int] = (128, 128), signed: bool = True
) -> NDArray[np.float32]:
    """Shares every event between the two nearest of T moments, linearly in time (Zhu et al., CVPR 2019, section 3.1).

    An event at time t lies at `(bins - 1) (t - t_first) / (t_last - t_first)` and adds `max(0, 1 - distance)` to
    either neighbour: the interpolation is linear in time, and there is none in space, as addresses are whole numbers.

    Args:
        events: Fields t, x, y, p, in order of time; at least one.
        bins: Number of moments T.
        size: Height and width of the sensor.
        signed: Add polarities as -1 and +1 in one channel, as in the paper; otherwise count each in its own channel.

    Returns:
        float32 `[T, 1, H, W]` if signed, else `[T, 2, H, W]`.

    Raises:
        DataError: If an event lies outside the sensor.
    """
    height, width = size
    channels = 1 if signed else 2
    first, length = float(events["t"][0]), float(events["t"][-1]) - float(events["t"][0])
    rate = (bins - 1) / length if length else 0.0
    grids = np.zeros((2, bins, channels, height, width))  # what events give the moment before them, and after them
    outside = _voxel_kernel()(events["t"], events["x"], events["y"], events["p"], first, rate, signed, grids)
    if outside >= 0:
        raise _outside(events, outside, width, height)
    return grids.sum(0).astype(np.float32)


@cache
def _voxel_kernel() -> Any:
    """As `_kernel`, for voxel grids."""

    def share(t, x, y, p, first, rate, signed, grids):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        bins, _, height, width = grids.shape[1:]
        for i in range(len(t)):
            if not (0 <= x[i] < width and 0 <= y[i] < height):
                return i
            place = (np.float64(t[i]) - first) * rate
            left = min(int(place), max(bins - 2, 0))
            after = place - left
            on = p[i] > 0
            channel, weight = (0, 1.0 if on else -1.0) if signed else (1 if on else 0, 1.0)
            grids[0, left, channel, y[i], x[i]] += weight * (1 - after)
            if bins > 1:
                grids[1, left + 1, channel, y[i], x[i]] += weight * after
        return -1

    return compile_loop(share)
