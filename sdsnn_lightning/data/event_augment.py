"""Random movement of event frames on the device, the same for all time steps and views of a sample.

All transforms of a sample are one map from target to source pixels, so a batch is augmented by a single gather on the
stored counts: no interpolation, no events invented. Mixup, which blends samples and labels, is in `data.mixup`.
"""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from sdsnn_lightning.errors import ConfigError


@dataclass(frozen=True)
class EventAugment:
    """How strongly to move frames. 0 turns a transform off.

    The published codes on CIFAR10-DVS at 48x48 flip half the samples, then either roll by up to 5 pixels, rotate by up
    to 30 degrees, or shear along x by up to 30 degrees; these are the defaults. That events rolled out on one side come
    in on the other is theirs, too. The cutout is ours and off.

    Attributes:
        flip: Probability of a left-right flip.
        roll: Most pixels to roll along either axis.
        rotate: Most degrees to rotate about the centre.
        shear: Most degrees to shear along x.
        cutout: Side of the largest square to blank, in pixels; the smallest is one pixel, and its centre lies anywhere.
        one_of: Apply one of roll, rotate, shear and cutout to a sample, each equally likely among those that are on;
            otherwise all of them, in that order.
    """

    flip: float = 0.5
    roll: int = 5
    rotate: float = 30.0
    shear: float = 30.0
    cutout: int = 0
    one_of: bool = True

    def __post_init__(self) -> None:
        """Refuses numbers out of their range."""
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"data.init_args.augment.flip is {self.flip}; set it to a probability, 0 to 1")
        for name in ("roll", "rotate", "shear", "cutout"):
            if getattr(self, name) < 0:
                raise ConfigError(f"data.init_args.augment.{name} is {getattr(self, name)}; set it to 0 or more")
        if self.rotate > 180 or self.shear >= 90:
            raise ConfigError("data.init_args.augment: set rotate to at most 180 and shear below 90 degrees")

    def __call__(self, frames: Tensor) -> Tensor:
        """Augments a batch.

        Args:
            frames: `[B, T, C, S, S]`, any type, on any device.

        Returns:
            The same shape, type and device. Drawn from torch's generator of the processor whatever the device, so that
            a seed gives the same pictures everywhere.
        """
        return move(frames, *self.draw(len(frames), frames.shape[-1]))

    def draw(self, samples: int, size: int) -> tuple[Tensor, Tensor]:
        """Draws what happens to every sample.

        Args:
            samples: Number of samples B.
            size: Side of the frames S.

        Returns:
            Source pixel of every target pixel, int64 `[B, S * S]`, and whether it shows anything, bool `[B, S * S]`.
        """
        strengths = (self.roll, self.rotate, self.shear, self.cutout)
        on = [k for k, strength in enumerate(strengths) if strength > 0]
        used = torch.ones(samples, 4, dtype=torch.bool)
        if self.one_of and on:
            used = torch.tensor(on)[torch.randint(len(on), (samples,))][:, None] == torch.arange(4)

        def between(k: int) -> Tensor:
            """Uniform in -strength to +strength, 0 for samples that do not use transform k; `[B]`."""
            return (torch.rand(samples) * 2 - 1) * strengths[k] * used[:, k]

        flip = torch.rand(samples) < self.flip
        roll = torch.randint(-self.roll, self.roll + 1, (2, samples)) * used[:, 0]
        angle, slope = between(1) * (pi / 180), torch.tan(between(2) * (pi / 180))
        x, y, shown = source_pixels(size, flip, roll, angle, slope)
        if self.cutout:
            side = torch.randint(1, self.cutout + 1, (samples,)) * used[:, 3]
            first = torch.randint(size, (2, samples)) - side // 2  # left and upper edge
            place = torch.arange(size)
            inside = (place >= first[..., None]) & (place < (first + side)[..., None])  # [2, B, S]
            shown &= ~(inside[1][:, :, None] & inside[0][:, None, :])
        return (y * size + x).flatten(1), shown.flatten(1)


def source_pixels(size: int, flip: Tensor, roll: Tensor, angle: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For every pixel of the augmented frame, the pixel of the stored frame that it shows.

    In order, a frame is flipped, rolled, rotated and sheared; this goes backwards, to the nearest pixel.

    Args:
        size: Side of the frames S.
        flip: Whether to flip left and right, bool `[B]`.
        roll: Pixels to roll to the right and downwards, int64 `[2, B]`.
        angle: Radians to rotate, from the x to the y axis: clockwise on the screen, `[B]`.
        slope: Columns to move right per row below the centre, `[B]`.

    Returns:
        Column and row, int64 `[B, S, S]` each, within the frame; and whether they are, before that, bool `[B, S, S]`.
    """
    centre = (size - 1) / 2
    place = torch.arange(size, dtype=torch.float32) - centre
    row, column = place[:, None], place[None, :]  # [S, 1], [1, S]
    column = column - slope[:, None, None] * row  # [B, S, S]
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    x = torch.round(cos * column + sin * row + centre).long()
    y = torch.round(cos * row - sin * column + centre).long()
    shown = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    x = (x - roll[0][:, None, None]) % size
    y = (y - roll[1][:, None, None]) % size
    return torch.where(flip[:, None, None], size - 1 - x, x), y, shown


def move(frames: Tensor, source: Tensor, shown: Tensor) -> Tensor:
    """Looks every pixel up at its source.

    Args:
        frames: `[B, T, C, S, S]`.
        source: Flat source pixel of every target pixel, int64 `[B, S * S]`.
        shown: Where a target pixel shows anything, bool `[B, S * S]`; elsewhere it is 0.

    Returns:
        `[B, T, C, S, S]`.
    """
    flat = frames.flatten(3).flatten(1, 2)  # [B, T * C, S * S]
    index = source.to(frames.device)[:, None].expand_as(flat)
    moved = flat.gather(2, index) * shown.to(frames.device)[:, None]
    return moved.view_as(frames)
