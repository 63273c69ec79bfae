"""A video with the answers of a network beside its frames, as a camera with the network in it would give them."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sdsnn_lightning.data.video_files import FPS, frames_from
from sdsnn_lightning.data.video_windows import VideoWindows
from sdsnn_lightning.progress import watched
from sdsnn_lightning.whole import whole_path

MIN_HEIGHT = 360
"""Smaller frames are enlarged by a whole number, to this height in pixels or more."""
TICK = Fraction(1, 60_000)
"""Unit of the time stamps in seconds: exact for 24, 25, 30 and 29.97 frames a second, and MPEG-4 allows no finer."""
_TABLE_ROUNDING = 1e-3  # seconds, as `predictions.csv` has them


class Answer(NamedTuple):
    """What a network said.

    Attributes:
        known: When its last image was seen, in seconds from the first frame.
        shares: Class probabilities `[K]`.
    """

    known: float
    shares: NDArray


def read_answers(table: Path) -> Iterator[Answer]:
    """Reads the answers of `predictions.csv` one by one.

    Args:
        table: Written for a video, so with `start_s` and `end_s`.

    Yields:
        The answers, in the order of time.
    """
    with table.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        for _, end, _, *shares, _ in rows:
            yield Answer(float(end) - 1 / FPS, np.array(shares, float))  # a window ends 1/30 s after its last image


def annotate_video(
    windows: VideoWindows, answers: Iterable[Answer], class_names: Sequence[str], path: Path, codec: str | None = None
) -> None:
    """Writes a video, frame by frame, with the answer known at each frame: never one that looks ahead.

    Left the frame, as it is but enlarged where it is small, with a border around the square that the network sees;
    right the probability of every class. Frames keep their time and number; sound is left out. Memory does not grow
    with the length. A bar shows the progress on a terminal.

    Args:
        windows: What was predicted on.
        answers: In the order of time.
        class_names: K names.
        path: The mp4 file to be; it takes this name when it is complete.
        codec: FFmpeg's name of the encoder; H.264 where there is one, else MPEG-4.

    Raises:
        DataError: If the video cannot be decoded.
        OSError: If the file cannot be written.
    """
    import av

    facts = windows.video
    scale = max(1, -(-MIN_HEIGHT // facts.size[0]))
    height, width = (scale * side for side in facts.size)
    coming = iter(answers)
    ahead = next(coming, None)
    panel = draw_panel(class_names, None, height)
    seconds = facts.last - facts.first
    rate = Fraction((facts.frames - 1) / seconds) if seconds > 0 else Fraction(FPS)
    with whole_path(path, ".mp4") as aside, av.open(str(aside), "w") as container:
        stream: Any = container.add_stream(
            codec or ("libx264" if "libx264" in av.codecs_available else "mpeg4"), rate=rate.limit_denominator(1001)
        )
        stream.height, stream.width = height + height % 2, width + panel.width + width % 2  # yuv420p is of even size
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", TICK
        stream.bit_rate = int(stream.height * stream.width * rate / 8)  # an eighth of a bit a pixel
        canvas = Image.new("RGB", (stream.width, stream.height))
        begin, stamp = None, -1
        for pixels, microseconds in watched(frames_from(windows.path, "rgb24"), f"Drawing {path.name}", facts.frames):
            begin = microseconds if begin is None else begin
            time = (microseconds - begin) * 1e-6
            while ahead is not None and ahead.known <= time + _TABLE_ROUNDING:
                panel = draw_panel(class_names, ahead.shares, height)
                ahead = next(coming, None)
            frame = Image.fromarray(pixels).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
            _mark_square(frame, windows, scale)
            canvas.paste(frame, (0, 0))
            canvas.paste(panel, (width, 0))
            picture = av.VideoFrame.from_image(canvas)
            stamp = max(stamp + 1, round(time / TICK))
            picture.pts, picture.time_base = stamp, TICK
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _mark_square(frame: Image.Image, windows: VideoWindows, scale: int) -> None:
    """Draws the border of the square that the network sees, where it is not the whole frame."""
    left, top, side = windows.square
    if windows.video.size == (side, side):
        return
    pen = ImageDraw.Draw(frame)
    for ink, inset in (("black", 0), ("white", 1)):  # one of them is seen on any ground
        corners = (left * scale + inset, top * scale + inset)
        pen.rectangle((*corners, *((edge + side) * scale - 1 - inset for edge in (left, top))), outline=ink)


def draw_panel(class_names: Sequence[str], shares: NDArray | None, height: int) -> Image.Image:
    """Draws an answer: the likeliest class in large letters, and a bar for every class.

    Args:
        class_names: K names; those too long for their place are shortened.
        shares: Their probabilities `[K]`; None while there is no answer.
        height: Of the panel in pixels. Of more classes than find room only the likeliest are drawn.

    Returns:
        The panel, white on black, of even width.
    """
    size = max(14, height // 24)
    small, large = (_font(points) for points in (size, round(1.5 * size)))
    width, margin, row = 16 * size, size // 2, round(1.6 * size)
    panel = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(panel)
    best = -1 if shares is None else int(shares.argmax())
    headline = "no answer yet" if shares is None else f"{100 * shares[best]:.0f} % {class_names[best]}"
    pen.text((margin, margin), _fitting(headline, large, width - 2 * margin), "white", large)
    top = margin + round(2.5 * size)
    room = max(1, (height - top) // row)
    order: list[int] = list(range(len(class_names)))
    if len(order) > room:
        order = (order if shares is None else np.argsort(-shares, kind="stable").tolist())[:room]
    left, right = round(7.5 * size), width - 4 * size
    for k in order:
        ink = "white" if k == best else "#b0b0b0"
        pen.text((margin, top), _fitting(class_names[k], small, left - 2 * margin), ink, small)
        pen.rectangle((left, top + 2, right, top + size), outline="#707070")
        if shares is not None:
            pen.rectangle((left, top + 2, left + round(float(shares[k]) * (right - left)), top + size), fill=ink)
            pen.text((width - margin, top), f"{100 * shares[k]:.0f} %", ink, small, anchor="ra")
        top += row
    return panel


def _font(points: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which knows most alphabets and which matplotlib carries along."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), points)


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """As much of a text as fits into a width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
