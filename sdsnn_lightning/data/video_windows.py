"""Any video as a stream of windows of time steps, at a constant rate and size."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import IterableDataset

from sdsnn_lightning.data.clips import covered
from sdsnn_lightning.data.video_files import FPS, frames_from, look_at
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.simulate.event_camera import EventCamera, event_frames

ROUNDING = 1.0
"""Times agree to a microsecond."""

Box = tuple[int, int, int]


def resample(frames: Iterator[tuple[NDArray, float]], fps: float = FPS) -> Iterator[NDArray]:
    """Brings frames to a constant rate by taking the nearest in time; holds two frames at a time.

    Args:
        frames: Frames with their rising times in microseconds.
        fps: Frames a second to give.

    Yields:
        The frame nearest to `first + k / fps`, for k = 0, 1, ... up to the time of the last frame.
    """
    before: tuple[NDArray, float] | None = None
    k, first = 0, 0.0
    for after in frames:
        if before is None:
            first = after[1]
        else:
            middle = (before[1] + after[1]) / 2
            while first + k * 1e6 / fps < middle:
                yield before[0]
                k += 1
        before = after
    while before is not None and first + k * 1e6 / fps <= before[1] + ROUNDING:
        yield before[0]
        k += 1


def find_square(frame: tuple[int, int], box: Box | None, path: Path) -> Box:
    """Finds the square that is cut out of the frames of a video.

    Args:
        frame: Height and width of the frames in pixels.
        box: Left, top and side in pixels; None takes the largest square in the middle.
        path: The video, for messages.

    Returns:
        Left, top and side.

    Raises:
        DataError: If the box does not lie within the frame.
    """
    height, width = frame
    side = min(height, width)
    left, top, side = box or ((width - side) // 2, (height - side) // 2, side)
    if min(left, top) < 0 or side < 1 or left + side > width or top + side > height:
        raise DataError(f"{path}: eye_box {list(box or ())} leaves the {width}x{height} frame; give left, top, side")
    return left, top, side


class VideoWindows(IterableDataset):
    """Windows E_x-S_y slid over a video, decoded as a stream: memory holds one window, whatever the length.

    Samples are dicts of `frames` uint8 `[T, 1, size, size]`, with `simulate_events` also `events` of the same shape (0
    negative, 127 none, 255 positive), and of the ints `window` (its first image, counted at 30 a second) and `target`
    (always 0: there are no labels).
    """

    def __init__(
        self,
        path: str | Path,
        size: int = 90,
        steps: int = 4,
        skip: int = 3,
        hop: int = 6,
        eye_box: Box | None = None,
        simulate_events: bool = False,
    ) -> None:
        """Looks at the length of the video; nothing is decoded yet.

        Args:
            path: Any file FFmpeg reads, or a folder of images, `FPS` a second.
            size: Height and width of the images, in pixels.
            steps: Images in a window, x of E_x-S_y.
            skip: Images skipped between two, y of E_x-S_y.
            hop: Images from the start of one window to the next.
            eye_box: Square around the eye in pixels: left, top, side. None takes the largest square in the middle.
            simulate_events: Also draw the events an event camera would see between consecutive images.

        Raises:
            DataError: If the file is missing, is no video, is shorter than a window, or `eye_box` leaves the frame.
        """
        self.path, self.size, self.eye_box, self.simulate_events = Path(path), size, eye_box, simulate_events
        self.steps, self.skip, self.hop = steps, skip, hop
        self.video = look_at(self.path)
        self.square = find_square(self.video.size, eye_box, self.path)
        self.images = int((self.video.last - self.video.first + ROUNDING * 1e-6) * FPS) + 1
        self.length = covered(steps, skip)
        if self.images < self.length:
            raise DataError(
                f"{self.path}: {self.images} images at {FPS:g} a second are shorter than a window of {self.length}; "
                "lower steps or skip, or give a longer video"
            )

    def __len__(self) -> int:
        """Number of windows; a video with undecodable frames at its end may give fewer."""
        return (self.images - self.length) // self.hop + 1

    def seconds(self, window: int) -> tuple[float, float]:
        """Start and end of a window in seconds from the first frame, the last image's own 1/30 s included.

        Args:
            window: First image of the window, as samples give it.
        """
        return window / FPS, (window + self.length) / FPS

    def _images(self) -> Iterator[dict[str, NDArray[np.uint8]]]:
        """Cropped, resized images of both modalities `[size, size]` at 30 a second."""
        camera = EventCamera() if self.simulate_events else None
        # Resizing before resampling and events: less to hold, and events at the resolution they are used at.
        frames = ((self._shrink(frame), time) for frame, time in frames_from(self.path))
        for k, frame in enumerate(resample(frames)):
            images = {"frames": frame}
            if camera is not None:
                time = k * 1e6 / FPS
                events = camera.push(frame, time)
                # An image holds the events since the one before, those at its own time included.
                edges = np.array([time - 1e6 / FPS, time]) + 1
                images["events"] = event_frames(events, edges, (self.size, self.size))[0]
            yield images

    def _shrink(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        left, top, side = find_square(frame.shape, self.eye_box, self.path)
        square = Image.fromarray(np.ascontiguousarray(frame[top : top + side, left : left + side]))
        return np.asarray(square.resize((self.size, self.size), Image.Resampling.BILINEAR))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        held: deque[dict[str, NDArray]] = deque(maxlen=self.length)
        for k, images in enumerate(self._images()):
            held.append(images)
            window = k + 1 - self.length
            if window >= 0 and window % self.hop == 0:
                taken = list(held)[:: self.skip + 1]
                sample: dict[str, Any] = {
                    name: torch.from_numpy(np.stack([step[name] for step in taken])).unsqueeze(1) for name in taken[0]
                }
                yield sample | {"window": window, "target": 0}
