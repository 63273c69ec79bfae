"""Any video as a stream of windows of time steps, at a constant rate and size."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import IterableDataset

from sdsnn_lightning.data.clips import covered
from sdsnn_lightning.data.image_folder import frames_from_folder, list_images, read_grey
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.simulate.event_camera import EventCamera, event_frames, frames_from_video

FPS = 30.0
"""Images a second of SEE, hence of every window."""

ROUNDING = 1.0
"""Times agree to a microsecond."""

Box = tuple[int, int, int]


class VideoFacts(NamedTuple):
    """What a video file says about itself.

    Attributes:
        first: Time of the first frame in seconds.
        last: Time of the last frame in seconds.
        size: Height and width in pixels.
    """

    first: float
    last: float
    size: tuple[int, int]


def look_at(path: Path) -> VideoFacts:
    """Reads the length and size of a video from its packets, without decoding.

    Args:
        path: Any file FFmpeg reads, or a folder of images, `FPS` a second.

    Returns:
        The facts.

    Raises:
        DataError: If the file is missing, is no video, or has no time stamps.
    """
    import av

    if path.is_dir():
        images = list_images(path)
        return VideoFacts(0.0, (len(images) - 1) / FPS, read_grey(images[0]).shape)
    if not path.is_file():
        raise DataError(f"{path}: no such video; set --data.root to a video file")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: holds no video stream; give a video file")
            stream = container.streams.video[0]
            stamps = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
            if not stamps or stream.time_base is None:
                raise DataError(f"{path}: has no time stamps; re-encode it, for instance into an mp4")
            first, last = (float(stamp * stream.time_base) for stamp in (min(stamps), max(stamps)))
            return VideoFacts(first, last, (stream.height, stream.width))
    except av.FFmpegError as error:
        raise DataError(f"{path}: is not a video ({error.strerror}); give a video file") from error


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


def crop_square(frame: NDArray, box: Box | None, path: Path) -> NDArray:
    """Cuts a square out of a frame `[H, W]`.

    Args:
        frame: The frame.
        box: Left, top and side in pixels; None takes the largest square in the middle.
        path: The video, for messages.

    Returns:
        A view `[side, side]` of the frame.

    Raises:
        DataError: If the box does not lie within the frame.
    """
    height, width = frame.shape
    side = min(height, width)
    left, top, side = box or ((width - side) // 2, (height - side) // 2, side)
    if min(left, top) < 0 or side < 1 or left + side > width or top + side > height:
        raise DataError(f"{path}: eye_box {list(box or ())} leaves the {width}x{height} frame; give left, top, side")
    return frame[top : top + side, left : left + side]


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
        video = look_at(self.path)
        crop_square(np.empty(video.size, np.uint8), eye_box, self.path)  # a box outside is an error now, not later
        self.images = int((video.last - video.first + ROUNDING * 1e-6) * FPS) + 1
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
        source = frames_from_folder(self.path, FPS) if self.path.is_dir() else frames_from_video(self.path)
        frames = ((self._shrink(frame), time) for frame, time in source)
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
        square = Image.fromarray(np.ascontiguousarray(crop_square(frame, self.eye_box, self.path)))
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
