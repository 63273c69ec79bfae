"""A video to events, for `sdsnn data to-events`."""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdsnn_lightning.data.video_files import frames_from_video
from sdsnn_lightning.data_commands.to_events import FORMATS, write_events
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE, EventCamera, EventCameraParams

SENSOR_SIZE = 128
"""Side of the sensor whose addresses AER-DAT2.0 holds."""


def convert_video(options: argparse.Namespace) -> None:
    """Plays a video to the event camera and writes one file.

    For `.aedat` the middle square of every frame is scaled to 128x128; `.npz` keeps the video's size.

    Args:
        options: See `to_events.add_parser`.

    Raises:
        ConfigError: If options are for images, or name two formats.
        DataError: If the video cannot be decoded or gives no event, or the output exists or cannot be written.
    """
    for key in ("limit", "test_limit", "loops"):
        if getattr(options, key) is not None:
            raise ConfigError(f"--{key.replace('_', '-')} is for images and {options.source} is a file; take it out")
    path = _output(options)
    params = EventCameraParams()
    if options.threshold is not None:
        params = replace(params, threshold_on=options.threshold, threshold_off=options.threshold)
    began = time.monotonic()
    camera = EventCamera(params, np.random.default_rng(options.seed))
    square = path.suffix == ".aedat"
    parts, number, seconds = [np.empty(0, EVENT_DTYPE)], 0, 0.0
    for frame, time_us in _watched(frames_from_video(options.source, options.upsample_fps), options.source.name):
        parts.append(camera.push(_square(frame) if square else frame, time_us))
        number, seconds = number + 1, time_us * 1e-6
    events = np.concatenate(parts)
    if not len(events):
        raise DataError(f"{options.source} gives no event in {number} frames; give a video in which something moves")
    new = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_events(path, events)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error}); name another output") from error
    finally:
        if new and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()
    took = time.monotonic() - began
    print(f"{path}: {len(events)} events of {number} frames, {seconds:.1f} s of video in {took:.0f} s")


def _output(options: argparse.Namespace) -> Path:
    """The file to write; its ending, or `--format`, says how."""
    out: Path = options.out
    named = out.suffix[1:] if out.suffix[1:] in FORMATS else None
    if named and options.format and named != options.format:
        raise ConfigError(f"{out} ends in .{named} and --format is {options.format}; make them agree")
    path = out if named else out / f"{options.source.stem}.{options.format or 'aedat'}"
    if path.exists() and not options.overwrite:
        raise DataError(f"{path} exists; name another output, or give --overwrite")
    return path


def _square(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle square of a frame `[H, W]` at the sensor's size."""
    height, width = frame.shape
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    size = (SENSOR_SIZE, SENSOR_SIZE)
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX, box=box))


def _watched(frames: Iterator[tuple[NDArray[np.uint8], float]], name: str) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Shows a spinner that counts frames, where a person is watching."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed:.0f} frames"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        for item in frames:
            yield item
            progress.advance(task)
