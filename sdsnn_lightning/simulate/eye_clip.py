"""One simulated clip: a rendered eye under one of four lightings, seen by a frame camera and an event camera."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdsnn_lightning.simulate.event_camera import EventCamera, EventCameraParams, event_frames
from sdsnn_lightning.simulate.eye_motion import draw_habits, trajectory
from sdsnn_lightning.simulate.eye_render import EyeRenderer, Face, Pose

FRAME_RATE = 30
SUBFRAMES = 6
"""Renderings per frame: the event camera sees 180 pictures a second."""


@dataclass(frozen=True)
class Lighting:
    """What a lighting condition does to the scene and to both cameras.

    Attributes:
        light: Strength of the light; reflectance 1 gives `255 * light` before exposure.
        contrast: Ratio of the bright to the dark side of the scene, across the image.
        gain: Gain of the frame camera.
        exposure: Subframes the frame camera averages, of `SUBFRAMES`: darkness blurs.
        noise: Standard deviation of the frame camera's noise, grey levels.
        shot_noise_hz: Noise events a second and pixel.
        linear_below: Intensity under which the event pixel stops being logarithmic.
    """

    light: float
    contrast: float
    gain: float
    exposure: int
    noise: float
    shot_noise_hz: float
    linear_below: float = 4.0


LIGHTINGS: dict[str, Lighting] = {
    "normal": Lighting(light=0.9, contrast=1.3, gain=1.0, exposure=2, noise=1.5, shot_noise_hz=0.3),
    "Overexposed": Lighting(light=2.4, contrast=1.6, gain=1.1, exposure=2, noise=1.5, shot_noise_hz=0.2),
    "Low": Lighting(light=0.04, contrast=1.3, gain=9.0, exposure=6, noise=7.0, shot_noise_hz=2.0, linear_below=1.0),
    "HDR": Lighting(light=1.1, contrast=12.0, gain=1.0, exposure=2, noise=2.0, shot_noise_hz=0.6),
}
"""The four conditions of SEE, by its names."""


@dataclass(frozen=True)
class Subject:
    """One simulated volunteer.

    Attributes:
        number: Counts from 1.
        sex: `man` or `woman`.
        age: Years.
        degree: SEE's word for it.
        lighting: The only condition this subject is seen in, as in SEE.
        face: Geometry and shades.
        habits: Resting pose, as differences to `Pose()`.
        light_angle: Direction the light comes from, radians.
    """

    number: int
    sex: str
    age: int
    degree: str
    lighting: str
    face: Face
    habits: Pose
    light_angle: float

    @classmethod
    def draw(cls, number: int, seed: int) -> "Subject":
        """Draws a person; equal numbers and seeds give equal persons. Lightings take turns by number."""
        rng = np.random.default_rng([seed, number])
        age = int(np.clip(rng.normal(21.5, 2.2), 19, 28))
        degree = "undergraduate" if age < 22 else "Master" if age < 25 else "Doctor"
        lighting = list(LIGHTINGS)[(number - 1) % len(LIGHTINGS)]
        sex = "woman" if rng.random() < 0.4 else "man"
        angle = rng.uniform(-0.8, 0.8) - np.pi / 2  # lamps hang above
        return cls(number, sex, age, degree, lighting, Face.draw(rng), draw_habits(rng), angle)


def _light_map(lighting: Lighting, angle: float, size: int) -> NDArray[np.float32]:
    """Light on every pixel, `[size, size]` on the 0-255 scale: a slope in log intensity across the image."""
    axis = np.linspace(-1, 1, size)
    slope = axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)
    # a steep middle for high contrast: a shadow's edge rather than a haze
    side = np.tanh(slope * (1 + np.log10(lighting.contrast)))
    vignette = 1 - 0.18 * (axis[None, :] ** 2 + axis[:, None] ** 2)
    return (255 * lighting.light * vignette * lighting.contrast ** (0.5 * side)).astype(np.float32)


def simulate_clip(
    subject: Subject, emotion: str, length: int, seed: list[int], size: int = 90
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Simulates one clip of one subject.

    The events are those of the scene's own light, before the frame camera cuts it to 8 bits: bright and contrasty
    scenes spoil frames far more than events.

    Args:
        subject: Whose eye.
        emotion: One of the seven labels.
        length: Number of frames.
        seed: Of this performance.
        size: Height and width in pixels.

    Returns:
        Frames and event frames, each uint8 `[length, size, size]`; the event frame of index i holds the events of the
        1/30 s before frame i was read out.
    """
    rng = np.random.default_rng(seed)
    lighting = LIGHTINGS[subject.lighting]
    renderer = EyeRenderer(subject.face, size)
    light = _light_map(lighting, subject.light_angle, size)
    times = np.arange(length * SUBFRAMES + 1) / (FRAME_RATE * SUBFRAMES)
    poses = trajectory(emotion, times, subject.habits, rng)
    params = EventCameraParams(
        threshold_on=0.18,
        threshold_off=0.18,
        shot_noise_rate_hz=lighting.shot_noise_hz,
        linear_below=lighting.linear_below,
    )
    camera = EventCamera(params, rng)
    exposed = np.zeros((length, size, size), np.float32)
    events = []
    for i, time in enumerate(times):
        scene = renderer.render(poses.at(i)) * light
        events.append(camera.push(scene, time * 1e6))
        frame, phase = divmod(i - 1, SUBFRAMES)
        if i > 0 and phase >= SUBFRAMES - lighting.exposure:
            exposed[frame] += scene / lighting.exposure
    edges = times[::SUBFRAMES] * 1e6
    shot = rng.standard_normal(exposed.shape, dtype=np.float32)
    read = exposed * lighting.gain + shot * (lighting.noise + 0.02 * np.sqrt(exposed * 255) * lighting.gain)
    frames = np.clip(np.rint(read), 0, 255).astype(np.uint8)
    return frames, event_frames(np.concatenate(events), edges, (size, size))
