"""An event camera in software: contrast-threshold events from any sequence of frames.

The pixel model is that of ESIM (Rebecq et al., CoRL 2018) with the noise sources of v2e (Hu et al., CVPRW 2021): every
pixel remembers a reference log intensity and fires whenever the log intensity, interpolated linearly between frames,
leaves the reference by its own threshold. Written from the papers; the differences are named where they occur.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdsnn_lightning.compiled import compile_loop
from sdsnn_lightning.errors import DataError

EVENT_DTYPE = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "i1")])
"""One event: time in microseconds, column, row, polarity (1 brighter, 0 darker)."""


@dataclass(frozen=True)
class EventCameraParams:
    """The pixel of an event camera. The defaults are a DAVIS346 in a lit room, as in v2e.

    Attributes:
        threshold_on: Log-intensity step of a positive event.
        threshold_off: Log-intensity step of a negative event, given as a positive number.
        threshold_spread: Standard deviation of both thresholds over pixels (fixed pattern), in log intensity.
        refractory_us: Dead time of a pixel after an event, microseconds.
        leak_rate_hz: Positive events a second that an idle pixel leaks.
        shot_noise_rate_hz: Noise events a second and pixel, both polarities together, in the dark.
        shot_noise_bright: The fraction of that rate left at white (255); linear in intensity between, as in v2e.
        linear_below: Intensity, on the 0-255 scale, below which the response is linear instead of logarithmic. 20
            hides the quantisation of dark 8-bit video (v2e); frames rendered with a high dynamic range take about 1.
    """

    threshold_on: float = 0.2
    threshold_off: float = 0.2
    threshold_spread: float = 0.03
    refractory_us: float = 500.0
    leak_rate_hz: float = 0.1
    shot_noise_rate_hz: float = 1.0
    shot_noise_bright: float = 0.25
    linear_below: float = 20.0


CLEAN = EventCameraParams(
    threshold_spread=0.0, refractory_us=0.0, leak_rate_hz=0.0, shot_noise_rate_hz=0.0, linear_below=1.0
)
"""An ideal pixel: equal thresholds, no dead time, no noise."""


def lin_log(intensity: NDArray, linear_below: float) -> NDArray[np.float32]:
    """Maps intensity to log intensity, with a straight line from 0 to the point where the logarithm takes over.

    Args:
        intensity: Any shape, 0 or more, on the 0-255 scale (brighter is allowed).
        linear_below: Where the line ends; the two pieces meet there (v2e, section 3.2).

    Returns:
        Natural-log intensity, float32, same shape.
    """
    value = np.asarray(intensity, np.float32)
    log = np.log(np.maximum(value, np.float32(linear_below)))
    if linear_below <= 1:  # the line would fall instead of rise: a floor is all that is left of it
        return log
    return np.where(value < linear_below, value * np.float32(np.log(linear_below) / linear_below), log)


@cache
def _kernel() -> Any:
    """Compiles the loop over pixels on first use."""

    def emit(  # type: ignore[no-untyped-def]  # noqa: ANN202
        before, after, t0, t1, reference, last, on, off, refractory, leak, t, x, y, p  # noqa: ANN001
    ):  # fmt: skip
        n, room = 0, t.size
        height, width = before.shape
        for i in range(height):
            for j in range(width):
                start, stop = before[i, j], after[i, j]
                # the leak pulls the reference down: equal to a signal that creeps up by one threshold per 1/leak s
                creep = on[i, j] * leak * (t1 - t0) * 1e-6
                rise = stop - start + creep
                ref = reference[i, j]
                while True:
                    if rise > 0 and start + rise >= ref + on[i, j] - 1e-6:
                        ref += on[i, j]
                        positive = 1
                    elif rise < 0 and start + rise <= ref - off[i, j] + 1e-6:
                        ref -= off[i, j]
                        positive = 0
                    else:
                        break
                    at = t0 + (t1 - t0) * min(max((ref - start) / rise, 0.0), 1.0)
                    if at - last[i, j] >= refractory:  # as in ESIM a dead pixel loses the event, not the reference
                        last[i, j] = at
                        if n < room:
                            t[n], x[n], y[n], p[n] = np.int64(np.round(at)), j, i, positive
                        n += 1
                reference[i, j] = ref - creep
        return n

    return compile_loop(emit)


class EventCamera:
    """Turns frames into events one frame at a time, so a video of any length fits in memory."""

    def __init__(self, params: EventCameraParams | None = None, rng: np.random.Generator | None = None) -> None:
        """Creates a camera; the first frame pushed sets its size and its reference.

        Args:
            params: The pixel model; `EventCameraParams()` where None.
            rng: Draws thresholds and noise; `default_rng(0)` where None. Equal generators give equal events.
        """
        self.params = params or EventCameraParams()
        self.rng = rng or np.random.default_rng(0)
        self._time: float | None = None
        self._log = np.empty((0, 0), np.float32)

    def push(self, frame: NDArray, time_us: float) -> NDArray[np.void]:
        """Returns the events since the frame before.

        Args:
            frame: Intensity `[H, W]`, uint8 or float on the 0-255 scale.
            time_us: Its time in microseconds, later than the frame before.

        Returns:
            Events of dtype `EVENT_DTYPE` in order of time, none for the first frame.

        Raises:
            DataError: If time does not advance or the frame has another size than the first.
        """
        if frame.ndim != 2:
            raise DataError(f"event camera: a frame has shape {frame.shape}; give grey frames [H, W]")
        log = lin_log(frame, self.params.linear_below)
        if self._time is None:
            self._start(log)
            events = np.empty(0, EVENT_DTYPE)
        else:
            if time_us <= self._time:
                raise DataError(f"event camera: frame at {time_us} us follows {self._time} us; sort the frames by time")
            if frame.shape != self._log.shape:
                raise DataError(f"event camera: frame size {frame.shape} follows {self._log.shape}; resize the frames")
            events = np.concatenate([self._signal(log, time_us), self._shot_noise(frame, time_us)])
            events = events[np.argsort(events["t"], kind="stable")]
        self._log, self._time = log, float(time_us)
        return events

    def _start(self, log: NDArray[np.float32]) -> None:
        """Draws the fixed pattern of the sensor and takes the first frame as reference."""
        spread = self.params.threshold_spread
        draw = self.rng.standard_normal((2, *log.shape), dtype=np.float32)
        # a threshold of nearly nothing would fire without end (v2e clips at 0.01 too)
        self._on = np.maximum(self.params.threshold_on + spread * draw[0], 0.01).astype(np.float64)
        self._off = np.maximum(self.params.threshold_off + spread * draw[1], 0.01).astype(np.float64)
        self._reference = log.astype(np.float64)
        if self.params.leak_rate_hz > 0:  # idle pixels leak out of phase; one drawn phase each
            self._reference -= self._on * self.rng.random(log.shape)
        self._last = np.full(log.shape, -np.inf)

    def _signal(self, log: NDArray[np.float32], time_us: float) -> NDArray[np.void]:
        """Events of the pixel model between two frames."""
        room = max(4096, log.size)
        while True:
            reference, last = self._reference.copy(), self._last.copy()
            columns = [np.empty(room, EVENT_DTYPE[name]) for name in ("t", "x", "y", "p")]
            count = _kernel()(
                self._log, log, float(self._time or 0.0), float(time_us), reference, last, self._on, self._off,
                float(self.params.refractory_us), float(self.params.leak_rate_hz), *columns,
            )  # fmt: skip
            if count <= room:
                break
            room = count  # rare: a violent change; once more with the room it needs
        self._reference, self._last = reference, last
        events = np.empty(count, EVENT_DTYPE)
        for name, column in zip(("t", "x", "y", "p"), columns, strict=True):
            events[name] = column[:count]
        return events

    def _shot_noise(self, frame: NDArray, time_us: float) -> NDArray[np.void]:
        """Independent noise events, rarer where it is bright; at most one a pixel and frame interval."""
        seconds = (time_us - (self._time or 0.0)) * 1e-6
        if self.params.shot_noise_rate_hz <= 0:
            return np.empty(0, EVENT_DTYPE)
        bright = np.clip(np.asarray(frame, np.float32) / 255, 0, 1)
        mean = self.params.shot_noise_rate_hz * seconds * (1 - (1 - self.params.shot_noise_bright) * bright)
        rows, columns = np.nonzero(self.rng.random(frame.shape, dtype=np.float32) < -np.expm1(-mean))
        events = np.empty(rows.size, EVENT_DTYPE)
        events["x"], events["y"] = columns, rows
        events["t"] = np.rint(time_us - self.rng.random(rows.size) * seconds * 1e6)
        events["p"] = self.rng.integers(0, 2, rows.size)
        return events


def simulate_events(
    frames: NDArray | Iterable[NDArray],
    times_us: NDArray | Iterable[float],
    params: EventCameraParams | None = None,
    rng: np.random.Generator | None = None,
) -> NDArray[np.void]:
    """Simulates the events of a whole sequence.

    Frames rendered or upsampled to a high rate give better events than video rate: between two frames the log intensity
    of a pixel is a straight line, so a motion of many pixels between frames becomes a fade.

    Args:
        frames: `[N, H, W]` or an iterable of `[H, W]`, uint8 or float on the 0-255 scale.
        times_us: Times `[N]` in microseconds, rising.
        params: The pixel model.
        rng: Draws thresholds and noise.

    Returns:
        Events of dtype `EVENT_DTYPE`, in order of time.

    Raises:
        DataError: If the counts differ, time does not advance or a size changes.
    """
    camera = EventCamera(params, rng)
    try:
        parts = [camera.push(frame, time) for frame, time in zip(frames, times_us, strict=True)]
    except ValueError as error:
        raise DataError("event camera: the number of frames and of times differ; give one time a frame") from error
    return np.concatenate(parts) if parts else np.empty(0, EVENT_DTYPE)


def event_frames(events: NDArray[np.void], edges_us: NDArray, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draws events as images: the polarity of the latest event of every pixel in every window.

    Args:
        events: Fields t, x, y, p (p > 0 is positive), in order of time.
        edges_us: Window edges `[n + 1]` in microseconds, rising; an event at an edge belongs to the window it opens.
        size: Height and width of the sensor.

    Returns:
        `[n, H, W]` uint8: 127 no event, 255 positive, 0 negative. That SEE draws the latest polarity is our reading
        of its released images; the authors' text leaves it open.
    """
    edges = np.asarray(edges_us)
    images = np.full((len(edges) - 1, *size), 127, np.uint8)
    window = np.searchsorted(edges, events["t"], side="right") - 1
    inside = (window >= 0) & (window < len(images))
    kept = events[inside]
    # of repeated indices NumPy keeps the last assignment: with events in order of time that is the latest
    images[window[inside], kept["y"], kept["x"]] = np.where(kept["p"] > 0, 255, 0).astype(np.uint8)
    return images
