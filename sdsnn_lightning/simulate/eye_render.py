"""A procedural near-eye camera: draws one right eye, grey, anti-aliased, from a subject's geometry and a pose.

The picture is a stack of layers, each a closed-form curve with a soft edge one pixel wide: skin, wrinkles, brow,
eyeball (sclera, iris, pupil, glint), lids, lashes. Image coordinates run from -1 to 1, x to the nose and y down: one
pixel of a 90x90 image is 0.022. All that does not move is drawn once per subject; a frame takes half a millisecond.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.float32]
MARGIN = 6
"""Pixels of skin drawn beyond every border, room for the helmet to slip."""


class Pose(NamedTuple):
    """What moves in an eye; every field a number for one moment, or an array `[N]` for a trajectory.

    Attributes:
        opening: Upper lid, 1 at rest, 0 closed, above 1 widened.
        lower: Lower lid, 0 at rest, 1 raised by the cheek.
        brow: Brow height above rest, image units.
        inner: Further height of the nasal end of the brow, image units; negative for a frown.
        furrow: Strength of the frown lines between the brows, 0 to 1.
        nose: Strength of the wrinkles beside the nose, 0 to 1.
        crow: Strength of the lines at the outer corner, 0 to 1.
        gaze_x: Iris centre, image units towards the nose.
        gaze_y: Iris centre, image units down.
        pupil: Pupil radius as a fraction of the iris.
        slip_x: Shift of the whole head under the helmet, image units.
        slip_y: The same, down.
    """

    opening: Any = 1.0
    lower: Any = 0.0
    brow: Any = 0.0
    inner: Any = 0.0
    furrow: Any = 0.0
    nose: Any = 0.0
    crow: Any = 0.0
    gaze_x: Any = 0.0
    gaze_y: Any = 0.0
    pupil: Any = 0.4
    slip_x: Any = 0.0
    slip_y: Any = 0.0

    def at(self, index: int) -> "Pose":
        """The pose at one moment of a trajectory."""
        return Pose(*(float(np.asarray(field)[index]) for field in self))


@dataclass(frozen=True)
class Face:
    """The geometry and the shades of one subject, in image units and reflectances, all that does not move."""

    centre: tuple[float, float]
    half_width: float
    upper: float
    lower: float
    tilt: float
    skew: float
    iris: float
    iris_shade: float
    skin: float
    lash: float
    lash_shade: float
    crease: float
    pouch: float
    brow_height: float
    brow_thickness: float
    brow_arch: float
    brow_slope: float
    brow_shade: float
    glint: tuple[float, float]
    texture_seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Face":
        """Draws a person."""
        uniform = rng.uniform
        return cls(
            centre=(uniform(-0.06, 0.04), uniform(0.09, 0.19)),
            half_width=uniform(0.62, 0.72),
            upper=uniform(0.29, 0.36),
            lower=uniform(0.14, 0.21),
            tilt=uniform(-0.03, 0.11),
            skew=uniform(-0.25, 0.3),
            iris=uniform(0.23, 0.28),
            iris_shade=uniform(0.10, 0.34),
            skin=uniform(0.30, 0.62),
            lash=uniform(0.06, 0.17),
            lash_shade=uniform(0.03, 0.12),
            crease=uniform(0.08, 0.17),
            pouch=uniform(0.05, 0.25),
            brow_height=uniform(0.58, 0.70),
            brow_thickness=uniform(0.07, 0.14),
            brow_arch=uniform(0.02, 0.16),
            brow_slope=uniform(-0.08, 0.07),
            brow_shade=uniform(0.06, 0.22),
            glint=(uniform(-0.09, 0.09), uniform(-0.12, -0.04)),
            texture_seed=int(rng.integers(2**31)),
        )


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Grey:
    """Noise of unit deviation whose blobs are about `cell` pixels wide."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * np.exp(-((frequency * cell) ** 2) * 2)
    noise = np.fft.irfft2(spectrum, shape)
    return (noise / noise.std()).astype(np.float32)


def _lines(position: Grey, gap: float) -> Grey:
    """Soft parallel lines, `gap` apart."""
    return np.maximum(np.cos(position * (2 * np.pi / gap)), 0) ** 1.5


def _hump(distance: Grey, width: float) -> Grey:
    """A smooth bump: 1 at distance 0, 0 beyond `width`; much cheaper than a Gaussian."""
    bump = np.maximum(1 - (distance * np.float32(1 / width)) ** 2, 0)
    return bump * bump


class EyeRenderer:
    """Draws one subject's eye."""

    def __init__(self, face: Face, size: int = 90) -> None:
        """Prepares textures.

        Args:
            face: The subject.
            size: Height and width of the image in pixels.
        """
        self.face, self.size = face, size
        self.pixel = 2.0 / size
        rng = np.random.default_rng(face.texture_seed)
        axis = ((np.arange(size) + 0.5) * self.pixel - 1).astype(np.float32)
        self.column, self.row = axis[None, :], axis[:, None]
        wide = ((np.arange(-MARGIN, size + MARGIN) + 0.5) * self.pixel - 1).astype(np.float32)
        self._draw_skin(rng, wide[None, :] - face.centre[0], wide[:, None] - face.centre[1])
        # one value per lash along the lid: its length, falling off to both sides of the lash's root
        self.lut_step = self.pixel / 4
        entries = int(2.8 / self.lut_step)
        spread = max(0.5 * self.pixel, 0.012) / self.lut_step
        roots = np.cumsum(rng.uniform(0.035, 0.085, 80) / self.lut_step)
        lengths = rng.uniform(0.55, 1.0, 80)
        profile = lengths - np.abs(np.arange(entries)[:, None] - roots[None]) / (3 * spread)
        self.lashes = np.maximum(profile.max(1), -0.3).astype(np.float32)
        hair = np.convolve(rng.standard_normal(entries + 8), np.ones(9) / 9, "valid")
        self.hair = np.clip(0.75 + 0.9 * hair, 0.25, 1).astype(np.float32)
        folds = np.convolve(rng.standard_normal(entries + 12), np.ones(13) / 13, "valid")
        self.folds = (1 + 0.22 * folds).astype(np.float32)
        self._draw_iris(rng)

    def _draw_skin(self, rng: np.random.Generator, x: Grey, y: Grey) -> None:
        """Skin, its wrinkles at full strength, and the shade of the eye socket, with a margin on every side."""
        shape = (y.shape[0], x.shape[1])
        grain = sum(depth * _smooth_noise(rng, shape, cell) for depth, cell in ((0.035, 1.2), (0.04, 7), (0.05, 22)))
        socket = np.exp(-(((x - 0.5) / 0.35) ** 2) - ((y + 0.12) / 0.3) ** 2) * 0.45
        socket = socket + 0.16 * np.exp(-((x / 0.9) ** 2) - ((y - 0.42) / 0.16) ** 2)
        ridge = 0.14 * np.exp(-(((y + 0.62) / 0.25) ** 2)) + 0.12 * np.exp(-(((y - 0.8) / 0.3) ** 2))
        self.skin = (self.face.skin * (1 + grain + ridge) * (1 - socket)).astype(np.float32)
        frown = np.exp(-(((x - 0.86) / 0.16) ** 2) - ((y + 0.5) / 0.22) ** 2) * _lines(x - 0.86 + 0.2 * (y + 0.5), 0.13)
        nose = np.exp(-(((x - 0.8) / 0.2) ** 2) - ((y - 0.18) / 0.24) ** 2) * _lines(y - 0.18 + 0.7 * (x - 0.8), 0.14)
        angle = np.arctan2(y - 0.03, -(x + 0.5) + 1e-3)
        reach = np.hypot(x + 0.62, y - 0.03)
        feet = np.exp(-(((reach - 0.24) / 0.13) ** 2)) * (np.abs(angle) < 0.9) * _lines(angle, 0.45)
        self.wrinkles = [(0.4 * part).astype(np.float32) for part in (frown, nose, feet)]

    def _draw_iris(self, rng: np.random.Generator) -> None:
        """A texture of radial fibres, a collarette and the dark limbus, on a square of 129 samples across 2.2 radii."""
        grid = np.linspace(-1.1, 1.1, 129, dtype=np.float32)
        radius = np.hypot(grid[None], grid[:, None])
        angle = np.arctan2(grid[:, None], grid[None])
        orders, phases = rng.integers(7, 34, 7), rng.uniform(0, 6.3, 7)
        fibres = sum(np.cos(n * angle + p + 3 * radius) for n, p in zip(orders, phases, strict=True)) / 7
        shade = self.face.iris_shade * (1 + 0.55 * fibres + 0.35 * np.exp(-(((radius - 0.55) / 0.12) ** 2)))
        self.iris = np.ascontiguousarray((shade * (1 - 0.75 * np.clip(radius, 0, 1) ** 7)).astype(np.float32).ravel())

    def _lookup(self, table: Grey, position: Grey) -> Grey:
        """Reads a one-dimensional table at image coordinates, -1.4 to 1.4."""
        return np.take(
            table, ((position + np.float32(1.4)) * np.float32(1 / self.lut_step)).astype(np.int32), mode="clip"
        )

    def _edge(self, distance: Grey, slope: Grey | float = 0.0) -> Grey:
        """Coverage of a pixel whose centre lies `distance` inside a curve of the given slope."""
        scale = np.float32(1 / self.pixel) / np.sqrt(1 + np.square(slope, dtype=np.float32))
        return np.clip(distance * scale + np.float32(0.5), 0, 1)

    def render(self, pose: Pose) -> Grey:
        """Draws the eye.

        Args:
            pose: One moment.

        Returns:
            Reflectance `[size, size]`, float32: 0 black, about 0.8 sclera, up to 2 in the glint.
        """
        face = self.face
        pose = Pose(*map(np.float32, pose))  # float32 throughout: half the time of float64
        x = self.column - np.float32(face.centre[0] + pose.slip_x)  # [1, W]
        y = self.row - np.float32(face.centre[1] + pose.slip_y)  # [H, 1]

        # the two lid margins, one height per column
        u = x * np.float32(1 / face.half_width)
        lens = np.maximum(1 - u * u, 0)
        line = np.float32(face.tilt) * -x
        low = line + np.float32(face.lower) * (1 - np.float32(0.6) * pose.lower) * lens
        rest = line - np.float32(face.upper) * lens * (1 + np.float32(face.skew) * u)
        up = low + (rest - low) * np.maximum(pose.opening, 0)
        slope = np.gradient(up[0], self.pixel).astype(np.float32)[None]
        above = up - y  # height above the upper margin, [H, W]
        below = y - low

        image = self._skin(pose)
        # the lid between margin and crease: rounded, with fine folds that travel with the margin
        crease = rest - np.float32(face.crease) * (np.float32(0.35) + np.float32(0.65) * np.sqrt(lens))
        crease -= (pose.opening - 1) * np.float32(0.25 * face.upper) * lens + np.float32(0.25) * pose.brow * lens
        on_lid = self._edge(y - crease) * self._edge(above) * (lens > 0)
        bulge = _hump(y - (crease + up) * np.float32(0.5), 0.22)
        lid = self._lookup(self.folds, above) * (np.float32(0.92) + np.float32(0.2) * bulge)
        image = image * (1 + on_lid * (lid - 1))
        image *= 1 - np.float32(0.42) * _hump(y - crease, 0.045) * np.sqrt(lens)
        # the pouch under the eye deepens when the cheek rises
        pouch = low + np.float32(0.10) + np.float32(0.05) * lens
        depth = np.float32(face.pouch) + np.float32(0.4) * np.maximum(pose.lower, 0)
        image *= 1 - depth * _hump(y - pouch, 0.05) * lens
        image += np.float32(0.10) * _hump(below - np.float32(0.015), 0.03) * lens  # the wet lower margin

        self._brow(image, x, y, pose)

        inside = self._edge(-above, slope) * self._edge(-below) * (lens > 0)
        image += inside * (self._ball(x, y, above, pose) - image)

        # the dark upper margin and the lashes, which turn down as the lid closes
        margin = _hump(above - np.float32(0.01), 0.035) * np.sqrt(lens)
        turn = np.clip((pose.opening - np.float32(0.3)) * 2, -0.7, 1)
        turn = np.copysign(np.maximum(np.abs(turn), np.float32(0.2)), turn)
        height = above * np.float32(1 / (turn * face.lash))
        fan = x - np.float32(0.5) * x * np.maximum(height, 0) * np.float32(face.lash)
        lash = np.clip((self._lookup(self.lashes, fan) - height) * 3, 0, 1) * self._edge(height * np.float32(face.lash))
        lash *= np.minimum(lens * 4, 1)
        height = below * np.float32(1 / (0.55 * face.lash))
        short = np.clip((self._lookup(self.lashes, 1 - fan) - height) * 2, 0, 1) * self._edge(below)
        short *= np.minimum(lens * 2, 1)
        dark = np.maximum(np.maximum(np.float32(0.85) * margin, np.float32(0.9) * lash), np.float32(0.45) * short)
        image += dark * (np.float32(face.lash_shade) - image)
        return image

    def _skin(self, pose: Pose) -> Grey:
        """Skin with the wrinkles of the moment, shifted by a fraction of a pixel."""
        frown, nose, feet = self.wrinkles
        skin = self.skin * (1 - pose.furrow * frown - pose.nose * nose - pose.crow * feet)
        left, top = MARGIN - pose.slip_x / self.pixel, MARGIN - pose.slip_y / self.pixel
        left, top = (min(max(float(v), 0.0), 2 * MARGIN - 1.001) for v in (left, top))
        j, i, n = int(left), int(top), self.size
        a, b = np.float32(left - j), np.float32(top - i)
        rows = skin[:, j : j + n] * (1 - a) + skin[:, j + 1 : j + 1 + n] * a
        return rows[i : i + n] * (1 - b) + rows[i + 1 : i + 1 + n] * b

    def _brow(self, image: Grey, x: Grey, y: Grey, pose: Pose) -> None:
        """Paints the brow over the skin, in place."""
        face = self.face
        nasal = np.clip(x * np.float32(0.6) + np.float32(0.5), 0, 1)
        middle = np.float32(face.brow_arch) * np.square(x + np.float32(0.15)) + np.float32(face.brow_slope) * x
        middle = middle - np.float32(face.brow_height) - pose.brow - pose.inner * nasal * nasal
        thickness = np.float32(face.brow_thickness) * (np.float32(0.35) + np.float32(0.65) * np.sqrt(nasal))
        offset = y - middle
        cover = np.maximum(1 - np.square(offset / thickness), 0)
        cover *= self._lookup(self.hair, x + np.float32(0.9) * offset * np.sign(np.float32(0.75) - nasal))
        image += np.minimum(cover * np.float32(1.6), np.float32(0.92)) * (np.float32(face.brow_shade) - image)

    def _ball(self, x: Grey, y: Grey, above: Grey, pose: Pose) -> Grey:
        """Sclera, iris, pupil and glint under the shadow of the upper lid, `[H, W]`."""
        face = self.face
        dx, dy = x - pose.gaze_x, y - pose.gaze_y
        radius = np.sqrt(dx * dx + dy * dy)
        u = x * np.float32(1 / face.half_width)
        ball = (
            np.float32(0.78)
            - np.float32(0.28) * u * u
            - np.float32(0.2) * _hump(x - np.float32(0.93 * face.half_width), 0.14)
        )
        scale = np.float32(64 / (1.1 * face.iris))
        column = np.clip(dx * scale + 64, 0, 128).astype(np.int32)
        row = np.clip(dy * scale + 64, 0, 128).astype(np.int32)
        iris = np.take(self.iris, row * 129 + column)
        soft = np.float32(0.4)  # the limbus is a soft edge, two to three pixels wide
        ball = ball + np.clip((np.float32(face.iris) - radius) * (soft / self.pixel) + soft, 0, 1) * (iris - ball)
        ball += self._edge(np.float32(face.iris) * pose.pupil - radius) * (np.float32(0.025) - ball)
        ball *= np.float32(0.55) + np.float32(0.45) * np.clip(above * np.float32(-9), 0, 1)
        gx, gy = (
            np.float32(face.glint[0]) + pose.gaze_x * np.float32(0.6),
            np.float32(face.glint[1]) + pose.gaze_y * np.float32(0.6),
        )
        return ball + np.float32(1.6) * _hump(np.sqrt(np.square(x - gx) + np.square(y - gy)), 0.05)
