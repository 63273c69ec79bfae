"""A simulated set of event recordings: ten kinds of shapes on the set-up of CIFAR10-DVS.

It stands in for CIFAR10-DVS (Li et al. 2017) where that set is absent: files of the same sensor, format and folders,
far fewer and shorter. Everything about the pictures is ours. Size, place, turn, contrast, texture and clutter vary, so
that a small network finds most shapes but not all. A result on it says how methods compare, no more.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sdsnn_lightning.progress import watched
from sdsnn_lightning.simulate.closed_loop import ClosedLoop, Job, make_recordings
from sdsnn_lightning.simulate.once import Stamp, check_least, make_once

VERSION = 1
"""Raised whenever the recordings change, so that an old set is known as such."""
CLASSES = ("arrow", "crescent", "cross", "disc", "half", "pentagon", "ring", "square", "star", "triangle")
"""The kinds of shapes, in the order of their class indices."""
RECORDINGS = 40
LOOPS = 1
"""Rounds of the closed loop, 0.2 s; CIFAR10-DVS has six."""
_SIZE = 96  # of a drawn picture, in pixels
_FINE = 3  # drawn larger by this, for smooth edges


def write_simulated_recordings(
    root: str | Path,
    seed: int = 0,
    *,
    recordings: int = RECORDINGS,
    loops: int = LOOPS,
    workers: int = 1,
) -> Path:
    """Writes the set as `<class>/<class>_<number>.aedat`, or reuses the one that stands there.

    The folder appears whole or not at all, and two processes do not write it twice. The same parameters give the same
    files, whatever the number of workers.

    Args:
        root: Folder of the set. A simulated set of other parameters or of another version in it is replaced.
        seed: Everything is drawn from it.
        recordings: Recordings of every class.
        loops: Rounds of the closed loop in a recording, 0.2 s each.
        workers: Processes. One, the caller, makes the set in 20 s; more start as new interpreters, which a script
            without `if __name__ == "__main__"` does not survive.

    Returns:
        `root`.

    Raises:
        ConfigError: If a parameter is too small.
        DataError: If `root` holds files that this function did not write, which are left alone, or cannot be written.
    """
    parameters = {"seed": seed, "recordings": recordings, "loops": loops}
    check_least("simulated recordings", parameters, seed=0, recordings=1, loops=1)
    stamp = Stamp("sdsnn_lightning.simulate.shapes", VERSION, {**parameters})
    return make_once(Path(root), "recordings", stamp, lambda folder: _write(folder, parameters, workers))


def _write(folder: Path, parameters: dict[str, int], workers: int) -> None:
    """Simulates and writes every recording."""
    # The data package imports the data modules, which import this module.
    from sdsnn_lightning.data.aedat import write_aedat

    done = make_recordings(_jobs(folder, parameters), ClosedLoop(loops=parameters["loops"]), workers=workers)
    for job, events in watched(done, "Simulating recordings", len(CLASSES) * parameters["recordings"]):
        write_aedat(job.path, events, comments=["Simulated: sdsnn_lightning.simulate.shapes"])


def _jobs(folder: Path, parameters: dict[str, int]) -> Iterator[Job]:
    """Draws the picture of every recording."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for number in range(parameters["recordings"]):
            seed = (parameters["seed"], label, number)
            encoded = BytesIO()
            draw_shape(name, np.random.default_rng([*seed, 0])).save(encoded, "PNG", compress_level=1)
            path = folder / name / f"{name}_{number:03d}.aedat"
            yield Job(encoded.getvalue(), f"{name} {number}", path, (*seed, 1))


def draw_shape(name: str, rng: np.random.Generator) -> Image.Image:
    """Draws one picture: a textured shape among clutter on a textured ground.

    Args:
        name: One of `CLASSES`.
        rng: Draws all that varies: radius 0.28 to 0.4 of the picture, up to 0.1 off the middle along either axis,
            turned by up to 20 degrees, squeezed by up to a fifth, brighter or darker than the ground by 0.15 to 0.4,
            none to three bits of clutter of that contrast or less.

    Returns:
        Grey, 96x96.
    """
    ground = rng.uniform(0.3, 0.7)
    contrast = rng.uniform(0.15, 0.4) * (-1 if rng.random() < ground else 1)  # mostly away from the nearer end
    picture = ground + _texture(rng, rng.uniform(0.005, 0.04))
    for _ in range(rng.integers(0, 4)):
        mask = _clutter(rng)
        picture += mask * rng.uniform(0.5, 1.0) * abs(contrast) * rng.choice([-1, 1])
    turn = np.deg2rad(rng.uniform(-20, 20))
    centre = rng.uniform(0.4, 0.6, 2)
    mask = _mask(_outline(name, rng), centre, rng.uniform(0.28, 0.4), turn, rng.uniform(0.8, 1.0))
    inside = ground + contrast + _texture(rng, rng.uniform(0.005, 0.05))
    picture = picture * (1 - mask) + inside * mask
    return Image.fromarray(np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8))


def _arc(begin: float, end: float, radius: float = 1.0, x: float = 0.0) -> NDArray[np.float64]:
    """Points `[24, 2]` on a circle around (x, 0)."""
    turn = np.linspace(begin, end, 24)
    return np.stack([x + radius * np.cos(turn), radius * np.sin(turn)], 1)


def _regular(corners: int, inner: float | None = None) -> NDArray[np.float64]:
    """A regular polygon, or a star whose inner corners lie at `inner`."""
    count = corners if inner is None else 2 * corners
    turn = 2 * np.pi * np.arange(count) / count
    radius = np.ones(count) if inner is None else np.where(np.arange(count) % 2, inner, 1.0)
    return radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)


def _outline(name: str, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Closed outlines `[points, 2]` within the unit circle; a second one is a hole."""
    thick = rng.uniform(0.25, 0.4)
    if name == "arrow":
        half = thick / 2
        corners = [(1, 0), (0.2, 0.7), (0.2, half), (-1, half), (-1, -half), (0.2, -half), (0.2, -0.7)]
        return [np.array(corners, float)]
    if name == "crescent":  # between a circle and one moved to the right; both pass through (0.3, +-0.954)
        tip = np.arccos(0.3)
        inner = np.hypot(0.3 - 0.55, np.sin(tip))
        back = np.pi - np.arcsin(np.sin(tip) / inner)
        return [np.concatenate([_arc(tip, 2 * np.pi - tip), _arc(2 * np.pi - back, back, inner, 0.55)])]
    if name == "cross":
        t = thick
        corners = [(1, t), (t, t), (t, 1), (-t, 1), (-t, t), (-1, t)]
        return [np.array([*corners, *((-x, -y) for x, y in corners)], float)]
    if name == "half":
        return [_arc(-np.pi / 2, np.pi / 2) - (0.3, 0)]
    if name in ("disc", "ring"):
        circle = _arc(0, 2 * np.pi)
        return [circle] if name == "disc" else [circle, circle * rng.uniform(0.5, 0.7)]
    corners_of = {"pentagon": 5, "square": 4, "triangle": 3}
    return [_regular(5, inner=0.4) if name == "star" else _regular(corners_of[name])]


def _mask(
    outlines: list[NDArray[np.float64]], centre: NDArray, radius: float, turn: float, squeeze: float
) -> NDArray[np.float32]:
    """Fills outlines, turned and placed (in parts of the picture); float32 `[_SIZE, _SIZE]` in [0, 1]."""
    side = _SIZE * _FINE
    image = Image.new("L", (side, side))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    for number, outline in enumerate(outlines):
        points = side * (centre + radius * (outline * (1, squeeze)) @ rotation.T)
        ImageDraw.Draw(image).polygon([(float(x), float(y)) for x, y in points], fill=0 if number else 255)
    return np.asarray(image.resize((_SIZE, _SIZE), Image.Resampling.BOX), np.float32) / np.float32(255)


def _clutter(rng: np.random.Generator) -> NDArray[np.float32]:
    """A bar or a blot somewhere."""
    corners = np.array([(1, 0.15), (-1, 0.15), (-1, -0.15), (1, -0.15)]) if rng.random() < 0.5 else _arc(0, 2 * np.pi)
    blot = len(corners) > 4
    radius = rng.uniform(0.03, 0.07) if blot else rng.uniform(0.08, 0.2)
    return _mask([corners], rng.uniform(0, 1, 2), radius, rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1))


def _texture(rng: np.random.Generator, strength: float) -> NDArray[np.float32]:
    """Smooth noise `[_SIZE, _SIZE]` of the given standard deviation; grains of 4 to 12 pixels."""
    grains = int(rng.integers(_SIZE // 12, _SIZE // 4))
    noise = Image.fromarray(rng.standard_normal((grains, grains), dtype=np.float32))
    smooth = np.asarray(noise.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC))
    scaled: NDArray[np.float32] = smooth * np.float32(strength / smooth.std())
    return scaled
