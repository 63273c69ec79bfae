"""Blurred knowledge distillation of BKDSNN (Xu et al., ECCV 2024, arXiv 2407.09083), and MGD, which shares its form."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.features import same_size, squared_error

MaskUnit = Literal["channel", "pixel", "element"]
"""What a blur mask blanks as a whole: a channel's map, a position in all channels, or one element."""


def blur_mask(
    feature: Tensor, ratio: float, unit: MaskUnit = "channel", generator: torch.Generator | None = None
) -> Tensor:
    """Draws the mask M: 0 with probability `ratio`, else 1; kept values are not scaled up, unlike in dropout.

    Args:
        feature: The feature to blur, `[N, C, H, W]`, for shape, dtype and device.
        ratio: lambda, the probability of a zero, in [0, 1]. 0.15 by default in all released scripts.
        unit: `channel` draws `[N, C, 1, 1]` as the BKDSNN code runs; `pixel` `[N, 1, H, W]` as MGD describes; `element`
            every value by itself.
        generator: Source of randomness; the device's default where None.

    Returns:
        Zeros and ones that broadcast to the feature.

    Raises:
        ConfigError: If the ratio or the unit is none of the above.
    """
    if not 0.0 <= ratio <= 1.0:
        raise ConfigError(f"ratio: {ratio} must be between 0 and 1")
    n, c, h, w = feature.shape
    shapes = {"channel": (n, c, 1, 1), "pixel": (n, 1, h, w), "element": (n, c, h, w)}
    if unit not in shapes:
        raise ConfigError(f"mask: {unit!r} is none of {', '.join(shapes)}")
    draw = torch.rand(shapes[unit], generator=generator, device=feature.device)
    return (draw >= ratio).to(feature.dtype)


class Restoration(nn.Sequential):
    """The restoration network G of BKDSNN: conv 3x3, ReLU, conv 3x3, all in the target's channels.

    Default initialisation of PyTorch, biases included, as in the code: 18 C^2 + 2 C parameters (4,719,616 at C = 512).
    On a vector, a map of one position, only the centre of a 3x3 kernel sees anything, so there the kernel is 1x1: the
    same functions with a ninth of the weights (ours).
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        """Creates the network.

        Args:
            channels: C of input and output.
            kernel: Odd side of both kernels.
        """
        super().__init__(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2),
        )


def blurred_feature_loss(feature: Tensor, target: Tensor, mask: Tensor, restore: Callable[[Tensor], Tensor]) -> Tensor:
    """L_BKD without its weight: `||G(M * S) - F||_F^2 / N`.

    Where the target is coarser, G's output is averaged down to it; a vector target gets the mean over all positions
    after G, which is the code's form for a transformer teacher.

    Args:
        feature: S `[N, C, H, W]`, already in the target's channels.
        target: F `[N, C, H', W']`; `H' = W' = 1` for a vector.
        mask: M, from `blur_mask`.
        restore: G.

    Returns:
        A scalar. The caller detaches what shall not learn.
    """
    return squared_error(*same_size(restore(feature * mask), target))
