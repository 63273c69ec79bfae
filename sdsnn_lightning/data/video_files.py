"""A video file, or a folder of images taken for one: its length and size, and its frames one by one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdsnn_lightning.data.image_folder import frames_from_folder, list_images, read_grey
from sdsnn_lightning.errors import DataError

FPS = 30.0
"""Images a second of SEE, hence of every folder of images."""
_TIMELESS = "{}: has no time stamps; re-encode it, for instance into an mp4"


class VideoFacts(NamedTuple):
    """What a video file says about itself.

    Attributes:
        first: Time of the first frame in seconds.
        last: Time of the last frame in seconds.
        frames: Number of frames.
        size: Height and width in pixels.
    """

    first: float
    last: float
    frames: int
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
    if path.is_dir():
        images = list_images(path)
        return VideoFacts(0.0, (len(images) - 1) / FPS, len(images), read_grey(images[0]).shape)
    with _opened(path, "set --data.root to a video file", "is not a video ({}); give a video file") as (file, stream):
        stamps = [packet.pts for packet in file.demux(stream) if packet.pts is not None]
        if not stamps or stream.time_base is None:
            raise DataError(_TIMELESS.format(path))
        first, last = (float(stamp * stream.time_base) for stamp in (min(stamps), max(stamps)))
        return VideoFacts(first, last, len(stamps), (stream.height, stream.width))


@contextmanager
def _opened(path: str | Path, missing: str, broken: str) -> Iterator[tuple[Any, Any]]:
    """A video file and its first stream of images; `missing` and `broken` end the errors, the latter with a reason."""
    import av

    if not Path(path).is_file():
        raise DataError(f"{path}: no such video; {missing}")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: holds no video stream; give a video file")
            yield container, container.streams.video[0]
    except av.FFmpegError as error:
        raise DataError(f"{path}: {broken.format(error.strerror)}") from error


def frames_from(path: Path, pixels: Literal["gray", "rgb24"] = "gray") -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Decodes a video or reads a folder of images, `FPS` a second; see `frames_from_video` and `frames_from_folder`.

    Args:
        path: The file or folder.
        pixels: `gray` or `rgb24`; images of a folder are grey either way.
    """
    return frames_from_folder(path, FPS) if path.is_dir() else frames_from_video(path, pixels=pixels)


def frames_from_video(
    path: str | Path, upsample_fps: float | None = None, pixels: Literal["gray", "rgb24"] = "gray"
) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Decodes a video into frames and their times.

    Args:
        path: Any file FFmpeg reads.
        upsample_fps: Interpolates the video along its motion to this rate first (FFmpeg's `minterpolate`), for finer
            events; slow, a few frames a second at 320x240. None keeps the file's own frames.
        pixels: `gray` or `rgb24`.

    Yields:
        Frame uint8, `[H, W]` if grey, `[H, W, 3]` if coloured, and its time in microseconds.

    Raises:
        DataError: If the file is missing, holds no video, has no time stamps, or cannot be decoded.
    """
    with _opened(path, "check the path", "cannot be decoded ({}); re-encode or replace the file") as (file, stream):
        frames: Iterable[Any] = file.decode(stream)
        if upsample_fps is not None:
            frames = _interpolated(frames, stream, upsample_fps)
        for frame in frames:
            if frame.time is None:
                raise DataError(_TIMELESS.format(path))
            yield frame.to_ndarray(format=pixels), frame.time * 1e6


def _interpolated(frames: Iterable[Any], stream: Any, fps: float) -> Iterator[Any]:
    """Runs frames through FFmpeg's motion-compensated interpolation."""
    import av

    graph = av.filter.Graph()
    filters = [graph.add_buffer(template=stream), graph.add("minterpolate", f"fps={fps}:mi_mode=mci:scd=none")]
    graph.link_nodes(*filters, graph.add("buffersink")).configure()
    for frame in chain(frames, (None,)):  # None flushes the filter
        graph.push(frame)
        while True:
            try:
                yield graph.pull()
            except (av.BlockingIOError, av.EOFError):
                break
