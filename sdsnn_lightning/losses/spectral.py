"""Features compared by their frequencies over time."""

import math
from typing import Literal

import torch
from torch import Tensor

from sdsnn_lightning.losses.logits import full_precision

Transform = Literal["dct", "fft"]


@full_precision
def time_spectrum(feature: Tensor, transform: Transform = "dct", bands: int | None = None) -> Tensor:
    """Frequencies of a feature over its time steps, in units that do not depend on their number.

    `dct`: `X_k = (c_k / T) sum_t x_t cos(pi k (t + 1/2) / T)` with `c_0 = 1` and else `sqrt(2)`: k half waves in the
    window. `fft`: real and imaginary parts of `X_k = (c_k / T) sum_t x_t exp(-2 pi i k (t + 1/2) / T)`, k whole waves;
    time counts from the window's begin, so that steps are compared by where they lie and not by their number. In both
    `X_0` is the mean over time, and a slow signal has nearly the same `X_k` whatever T samples it.

    Args:
        feature: `[T, ...]`.
        transform: One of the two.
        bands: How many frequencies to keep, from the lowest; all that T steps can tell apart where None.

    Returns:
        `[F, ...]`, real; with `dct` F is the number of bands, at most T; with `fft` the real parts of at most
        `(T - 1) // 2 + 1` bands, then the imaginary parts of all but the first.
    """
    steps = len(feature)
    count = steps if transform == "dct" else (steps - 1) // 2 + 1
    count = min(count, bands or count)
    position = (torch.arange(steps, device=feature.device, dtype=feature.dtype) + 0.5) / steps
    order = torch.arange(count, device=feature.device, dtype=feature.dtype)[:, None]
    angle = math.pi * order * position * (1 if transform == "dct" else 2)
    basis = angle.cos() if transform == "dct" else torch.cat([angle.cos(), -angle[1:].sin()])
    scale = torch.full((len(basis), 1), math.sqrt(2) / steps, device=feature.device, dtype=feature.dtype)
    scale[0] = 1.0 / steps
    return torch.einsum("ft,t...->f...", scale * basis, feature)


def common_bands(student_steps: int, teacher_steps: int, transform: Transform = "dct", bands: int | None = None) -> int:
    """How many frequencies both numbers of steps can tell apart, at most `bands`.

    Args:
        student_steps: T of the student's feature.
        teacher_steps: T of the teacher's; 1 leaves the mean over time alone.
        transform: As of `time_spectrum`.
        bands: Upper bound, or None.

    Returns:
        At least 1.
    """
    steps = min(student_steps, teacher_steps)
    most = steps if transform == "dct" else (steps - 1) // 2 + 1
    return min(most, bands or most)
