"""How an eye moves while its owner shows an emotion: onset, apex and offset, blinks, saccades and tremor.

Two kinds of cue tell the seven emotions apart. The shape at the apex (lids, brow, wrinkles) is what a frame shows; it
follows the facial action units of each emotion and is deliberately close within the pairs people confuse too (fear and
surprise, anger and disgust, sadness and neutrality). The dynamics (speed of the onset, lid tremor of a fraction of a
pixel, pulses, small saccades) are too fast or too small for a few frames, and are what an event camera is good at.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdsnn_lightning.simulate.eye_render import Pose


@dataclass(frozen=True)
class Style:
    """One emotion.

    Attributes:
        shape: Change of the pose at the apex, by name of the `Pose` field.
        onset: Seconds from neutral to apex.
        tremor: Amplitude of a fast quiver of the upper lid, in fractions of the lid's opening.
        tremor_hz: Its frequency.
        pulse: Amplitude of a rhythmic squeeze of the lower lid (and the brow), 0 to 1.
        pulse_hz: Its frequency.
        saccades: Saccades a second.
        saccade: Their typical size, image units.
        blinks: Blinks a second.
        sink: Slow closing of the upper lid, fractions of the opening a second.
    """

    shape: dict[str, float]
    onset: float
    tremor: float = 0.0
    tremor_hz: float = 12.0
    pulse: float = 0.0
    pulse_hz: float = 4.0
    saccades: float = 1.0
    saccade: float = 0.06
    blinks: float = 0.25
    sink: float = 0.0


STYLES: dict[str, Style] = {
    "angry": Style(
        {"opening": -0.15, "lower": 0.4, "brow": -0.13, "inner": -0.12, "furrow": 1.0, "nose": 0.3},
        onset=0.12, saccades=0.3, blinks=0.05,
    ),
    "disgust": Style(
        {"opening": -0.20, "lower": 0.55, "brow": -0.07, "inner": -0.05, "furrow": 0.5, "nose": 0.9},
        onset=0.35, pulse=0.16, pulse_hz=5.0, saccades=0.8, blinks=0.3,
    ),
    "fear": Style(
        {"opening": 0.25, "lower": 0.1, "brow": 0.09, "inner": 0.07, "furrow": 0.3, "pupil": 0.07},
        onset=0.30, tremor=0.035, tremor_hz=13.0, saccades=5.0, saccade=0.025, blinks=0.1,
    ),
    "happiness": Style(
        {"opening": -0.20, "lower": 0.85, "crow": 1.1, "nose": 0.1},
        onset=0.25, pulse=0.08, pulse_hz=7.0, saccades=1.0, blinks=0.25,
    ),
    "neutral": Style({}, onset=0.3, saccades=1.8, saccade=0.08, blinks=0.35),
    "sadness": Style(
        {"opening": -0.18, "lower": 0.08, "inner": 0.13, "furrow": 0.25, "gaze_y": 0.06},
        onset=0.45, saccades=0.4, saccade=0.04, blinks=0.15, sink=0.16,
    ),
    "surprise": Style(
        {"opening": 0.29, "lower": 0.0, "brow": 0.16, "inner": 0.0, "pupil": 0.10},
        onset=0.10, saccades=0.3, saccade=0.04, blinks=0.3,
    ),
}  # fmt: skip
"""The seven emotions of SEE, by its label."""

SHAPE_SPREAD = {
    "opening": 0.05, "lower": 0.07, "brow": 0.02, "inner": 0.018, "furrow": 0.1, "nose": 0.1, "crow": 0.1,
    "gaze_x": 0.06, "gaze_y": 0.03, "pupil": 0.05,
}  # fmt: skip
"""Standard deviation of the pose between clips of one emotion: nobody shows an emotion twice alike."""


def _ease(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """The minimum-jerk profile of human movement, from 0 at t <= 0 to 1 at t >= 1."""
    t = np.clip(t, 0, 1)
    return t**3 * (10 - 15 * t + 6 * t * t)


def _blink(t: NDArray[np.float64], start: float, speed: float) -> NDArray[np.float64]:
    """Lid closure, 0 open to 1 closed: 70 ms down, 30 ms shut, 140 ms up at speed 1."""
    t = (t - start) * speed
    return _ease(t / 0.07) - _ease((t - 0.10) / 0.14)


def trajectory(emotion: str, times: NDArray[np.float64], habits: Pose, rng: np.random.Generator) -> Pose:
    """Draws one performance of an emotion.

    Args:
        emotion: A key of `STYLES`.
        times: Moments `[N]` in seconds, from about 0.
        habits: The subject's own resting pose, as differences to `Pose()`.
        rng: Draws this performance.

    Returns:
        A pose whose fields are arrays `[N]`.
    """
    style = STYLES[emotion]
    duration = float(times[-1])
    rest = {name: np.asarray(getattr(Pose(), name) + getattr(habits, name)) for name in Pose._fields}
    strength = rng.uniform(0.75, 1.15)

    # onset, apex, and in a third of the clips an offset before the end
    onset = style.onset * rng.uniform(0.8, 1.25)
    start = rng.uniform(-0.2, 0.08)
    level = _ease((times - start) / onset)
    if rng.random() < 1 / 3:
        level = level - rng.uniform(0.3, 0.9) * _ease((times - duration + 0.15) / (onset + 0.2))

    pose = {}
    for name in Pose._fields:
        target = strength * style.shape.get(name, 0.0)
        own = SHAPE_SPREAD.get(name, 0.0) * rng.standard_normal()
        pose[name] = rest[name] + target * level + own
    for name in ("furrow", "nose", "crow"):
        pose[name] = np.clip(pose[name], 0, 1.2)

    phase = rng.uniform(0, 2 * np.pi, 2)
    wobble = 1 + 0.3 * np.sin(2 * np.pi * 1.7 * times + phase[0])  # tremor comes and goes
    tremor = np.sin(2 * np.pi * style.tremor_hz * rng.uniform(0.9, 1.1) * times + phase[1]) * wobble
    pose["opening"] = pose["opening"] + style.tremor * rng.uniform(0.7, 1.3) * tremor * level
    squeeze = np.sin(2 * np.pi * style.pulse_hz * rng.uniform(0.85, 1.15) * times + phase[0])
    squeeze = style.pulse * rng.uniform(0.7, 1.3) * squeeze * level
    pose["lower"] = pose["lower"] + squeeze
    pose["brow"] = pose["brow"] - 0.08 * squeeze
    pose["nose"] = pose["nose"] * (1 + squeeze)
    pose["opening"] = pose["opening"] - 0.3 * squeeze - style.sink * times * level

    gaze = np.zeros((2, len(times)))
    for at in np.sort(rng.uniform(0, duration, rng.poisson(style.saccades * duration))):
        jump = rng.normal(0, style.saccade, 2) * (1, 0.6)
        jump -= 0.5 * gaze[:, -1]  # back to the centre in the long run
        gaze += jump[:, None] * _ease((times - at) / (0.025 + 0.15 * np.hypot(*jump)))
    pose["gaze_x"] = np.clip(pose["gaze_x"] + gaze[0], -0.26, 0.26)
    pose["gaze_y"] = np.clip(pose["gaze_y"] + gaze[1], -0.12, 0.16)
    # the upper lid follows the gaze down
    pose["opening"] = np.clip(pose["opening"] - 0.9 * (pose["gaze_y"] - rest["gaze_y"]), 0.15, 1.5)

    for at in rng.uniform(0, duration, rng.poisson(style.blinks * duration)):
        shut = _blink(times, at, rng.uniform(0.8, 1.25)) * rng.uniform(0.8, 1.0)
        pose["opening"] = pose["opening"] * (1 - shut)

    pose["pupil"] = np.clip(pose["pupil"], 0.22, 0.65) + 0.01 * np.sin(2 * np.pi * 0.8 * times + phase[1])
    # the helmet slips slowly and shakes a little
    for name, turn in (("slip_x", 0.0), ("slip_y", 1.3)):
        slow = 0.02 * np.sin(2 * np.pi * rng.uniform(0.15, 0.4) * times + rng.uniform(0, 6.3) + turn)
        pose[name] = pose[name] + slow + 0.001 * np.sin(2 * np.pi * rng.uniform(4, 7) * times + turn)
    return Pose(**{name: np.broadcast_to(value, times.shape) for name, value in pose.items()})


def draw_habits(rng: np.random.Generator) -> Pose:
    """Draws the resting pose of one person, as differences to `Pose()`.

    Args:
        rng: Draws the person.

    Returns:
        Differences: how open the lids are at rest, how the brow sits, faint permanent lines, and the pupil.
    """
    uniform = rng.uniform
    return Pose(
        opening=uniform(-0.10, 0.08),
        lower=uniform(-0.05, 0.15),
        brow=uniform(-0.03, 0.03),
        inner=uniform(-0.02, 0.02),
        furrow=uniform(0, 0.2),
        nose=uniform(0, 0.2),
        crow=uniform(0, 0.2),
        gaze_x=uniform(-0.05, 0.05),
        gaze_y=uniform(-0.02, 0.03),
        pupil=uniform(-0.08, 0.1),
    )
