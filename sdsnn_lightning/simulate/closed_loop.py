"""An image on a display in closed-loop motion, seen by an event camera: the recording set-up of CIFAR10-DVS.

Li et al. (Frontiers in Neuroscience 2017, doi 10.3389/fnins.2017.00309) enlarged the images of CIFAR-10 to 512x512 by
bicubic interpolation, moved them on an LCD in a repeated closed loop (RCLS) and recorded a 128x128 DVS128.

* From their paper and the notes beside the recordings: the enlargement, the display's 60 Hz, the sensor.
* From later descriptions of the method, which we could not check in the paper's text: the loop of four straight paths
  at 45 degrees (a square on its corner), 10 display pixels along each axis, at 200 pixels a second along each axis; six
  loops, so 1.2 s.
* Ours: four display pixels to a sensor pixel, that the image's border goes on for ever, a gamma of 2.2 and a black
  level, the sensor's noise, and its threshold, set so that images of CIFAR-10 give about 200,000 events, as in
  CIFAR10-DVS. Every recording is taken by a sensor of its own: the fixed pattern is drawn anew.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sdsnn_lightning.cores import usable_cores, worker_processes
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.images import check_depth
from sdsnn_lightning.simulate.event_camera import EventCameraParams, simulate_events

SENSOR = EventCameraParams(threshold_on=0.26, threshold_off=0.26, linear_below=1.0)
"""A DVS128 as we set it: see the module's text; the noise is that of `EventCameraParams`."""
_CORNERS = ((0, 0), (1, -1), (2, 0), (1, 1))
"""The loop's corners in units of one path, x to the right and y downwards."""


@dataclass(frozen=True)
class ClosedLoop:
    """The display, the motion and the sensor's field of view.

    Attributes:
        loops: Rounds of the closed loop (six).
        path_pixels: Length of each of the four paths along either axis, in display pixels (10).
        speed: Display pixels a second along either axis (200).
        refresh_hz: Rate of the display (60); the image jumps to whole display pixels at every refresh, and fades from
            one place to the next, as the crystal turns slowly.
        display_size: Side of the shown image in display pixels (512).
        sensor_size: Side of the sensor in pixels (128), which sees just the image at the middle of its loop.
        gamma: Exponent of luminance over pixel value (ours: 2.2).
        black: Luminance of black over that of white, which limits the contrast (ours: 0.02).
    """

    loops: int = 6
    path_pixels: int = 10
    speed: float = 200.0
    refresh_hz: float = 60.0
    display_size: int = 512
    sensor_size: int = 128
    gamma: float = 2.2
    black: float = 0.02

    def __post_init__(self) -> None:
        """Refuses what cannot be shown.

        Raises:
            ConfigError: If a number is out of its range.
        """
        for key in ("loops", "path_pixels", "speed", "refresh_hz", "sensor_size", "gamma"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"closed loop: {key} is {getattr(self, key)}; give more than 0")
        if self.display_size % self.sensor_size or self.display_size < self.sensor_size:
            raise ConfigError(
                f"closed loop: display_size is {self.display_size}; give a multiple of the sensor's {self.sensor_size}"
            )
        if not 0 < self.black < 1:
            raise ConfigError(f"closed loop: black is {self.black}; give a share of white between 0 and 1")

    @property
    def seconds(self) -> float:
        """Duration of a recording, 1.2 s by default."""
        return self.loops * len(_CORNERS) * self.path_pixels / self.speed

    def positions(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The way of the image.

        Returns:
            Its place at every refresh, `[N, 2]` (x, y) in whole display pixels around the middle of the loop, and the
            times `[N]` in microseconds. The last place is the first again.
        """
        path_us = 1e6 * self.path_pixels / self.speed
        times = np.arange(round(self.seconds * self.refresh_hz) + 1) * (1e6 / self.refresh_hz)
        number, share = np.divmod(times / path_us + 1e-9, 1.0)
        begin = np.array(_CORNERS)[number.astype(np.int64) % len(_CORNERS)]
        end = np.array(_CORNERS)[(number.astype(np.int64) + 1) % len(_CORNERS)]
        place = (begin + share[:, None] * (end - begin) - (1, 0)) * self.path_pixels
        return np.rint(place).astype(np.int64), times.astype(np.float64)


def show(image: Image.Image, setup: ClosedLoop) -> NDArray[np.float32]:
    """Shows an image on the display.

    Args:
        image: Of any size and mode; the middle square is shown. Colours count by their luma, as the sensor has none.
        setup: The display.

    Returns:
        Luminance `[display_size, display_size]`, float32, white 255 and black `255 * setup.black`.
    """
    grey = image.convert("L")
    side = min(grey.size)
    left, top = (grey.width - side) // 2, (grey.height - side) // 2
    size = (setup.display_size, setup.display_size)
    grey = grey.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    levels = np.linspace(0, 1, 256) ** setup.gamma
    table = (255 * (setup.black + (1 - setup.black) * levels)).astype(np.float32)
    return table[np.asarray(grey)]


def move(luminance: NDArray[np.float32], setup: ClosedLoop) -> tuple[list[NDArray[np.float32]], NDArray[np.float64]]:
    """What the sensor's pixels see while the shown image goes round.

    A sensor pixel takes the mean of its square of display pixels, so a step of one display pixel is a quarter of a
    sensor pixel. A place that is visited again in every loop is computed once.

    Args:
        luminance: What `show` returned.
        setup: The motion and the sensor.

    Returns:
        One frame `[sensor_size, sensor_size]` a refresh, float32 on the 0-255 scale, and their times in microseconds.
    """
    places, times = setup.positions()
    margin = int(np.abs(places).max())
    cell, size = setup.display_size // setup.sensor_size, setup.display_size
    # sums over every rectangle from the corner: four looks at it give the sum over any sensor pixel
    sums = np.pad(np.pad(luminance, margin, mode="edge").cumsum(0, np.float64).cumsum(1), ((1, 0), (1, 0)))
    frames: dict[tuple[int, int], NDArray[np.float32]] = {}
    for x, y in {(int(x), int(y)) for x, y in places}:
        grid = sums[margin - y : margin - y + size + 1 : cell, margin - x : margin - x + size + 1 : cell]
        frames[x, y] = (np.diff(np.diff(grid, axis=0), axis=1) / cell**2).astype(np.float32)
    return [frames[int(x), int(y)] for x, y in places], times


def record_image(
    image: Image.Image,
    setup: ClosedLoop | None = None,
    sensor: EventCameraParams = SENSOR,
    rng: np.random.Generator | None = None,
) -> NDArray[np.void]:
    """Records one image.

    Args:
        image: Of any size and mode.
        setup: Display and motion; that of CIFAR10-DVS where None.
        sensor: The event camera.
        rng: Draws the sensor's fixed pattern and its noise.

    Returns:
        Events of `event_camera.EVENT_DTYPE` in order of time, rows counted from the top.
    """
    setup = setup or ClosedLoop()
    frames, times = move(show(image, setup), setup)
    return simulate_events(frames, times, sensor, rng)


class Job(NamedTuple):
    """One recording to make; all that a worker process needs.

    Attributes:
        image: An encoded image (JPEG, PNG, ...).
        name: What the image is called in a message.
        path: The file that the recording is for; the caller writes it.
        seed: Belongs to this recording alone, so that it does not matter who makes it, and when.
    """

    image: bytes
    name: str
    path: Path
    seed: tuple[int, ...]


def make_recordings(
    jobs: Iterable[Job], setup: ClosedLoop | None = None, sensor: EventCameraParams = SENSOR, workers: int | None = None
) -> Iterator[tuple[Job, NDArray[np.void]]]:
    """Makes recordings in several processes; the same events whatever their number.

    Args:
        jobs: Read as workers become free, so any number of images fits in memory.
        setup: Display and motion; that of CIFAR10-DVS where None.
        sensor: The event camera.
        workers: Processes; the number of usable cores where None. With one, the calling process does the work.

    Yields:
        Every job with its events (see `record_image`), in the order in which they are done.

    Raises:
        DataError: If an image cannot be read or gives no event, or a worker dies.
    """
    setup = setup or ClosedLoop()
    workers = workers or usable_cores()
    if workers == 1:
        yield from ((job, _record(job, setup, sensor)) for job in jobs)
        return
    running: dict[Future[NDArray[np.void]], Job] = {}
    with worker_processes(workers) as pool:
        for job in jobs:
            running[pool.submit(_record, job, setup, sensor)] = job
            if len(running) >= 4 * workers:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()


def _record(job: Job, setup: ClosedLoop, sensor: EventCameraParams) -> NDArray[np.void]:
    """Decodes and records one image."""
    try:
        with Image.open(BytesIO(job.image)) as image:
            image.load()
            check_depth(image)
            events = record_image(image, setup, sensor, np.random.default_rng(job.seed))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is none, or damaged" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{job.name} cannot be read as an image ({reason}); fetch it again or delete it") from None
    if not len(events):
        raise DataError(f"{job.name} gives no event; delete the image or lower the sensor's threshold")
    return events
