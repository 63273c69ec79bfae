"""Making features of two networks comparable in time and in space, and distances between them. Pure functions.

Every feature is seen as maps `[T, B, C, H, W]` (`as_maps`). Time is settled first (`align_time`), then space
(`same_size`), both towards the coarser of the two: averages lose detail, interpolation would invent it. How to align is
ours; the papers compare maps that agree already, or a map with a vector, for which they average over positions.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.logits import full_precision

TimeAlignment = Literal["auto", "mean", "step", "positions"]
"""How the time axes of two features meet; see `align_time`."""


class Pair(NamedTuple):
    """A student's and a teacher's feature with a common time axis.

    Attributes:
        student: `[S, B, C, H, W]`; S is 1 unless steps are compared one by one.
        teacher: `[S, B, C', H', W']`.
        real: True where a step is not padding, `[S, B]`; None where all are real.
    """

    student: Tensor
    teacher: Tensor
    real: Tensor | None = None

    def folded(self) -> tuple[Tensor, Tensor]:
        """Both features with steps and samples in one axis, `[N, C, H, W]`, padded steps left out."""
        student, teacher = self.student.flatten(0, 1), self.teacher.flatten(0, 1)
        if self.real is None:
            return student, teacher
        keep = self.real.flatten()
        return student[keep], teacher[keep]


def as_maps(feature: Tensor, timed: bool) -> Tensor:
    """Sees any feature as maps over time.

    Args:
        feature: `[T, B, D]`, `[T, B, D, L]` or `[T, B, C, H, W]`; the same without T where not `timed`. The channels
            come first, as everywhere in this package.
        timed: Whether the first axis is time.

    Returns:
        `[T, B, C, H, W]`: a vector becomes a map of one position, a sequence one of a single row; T is 1 without time.

    Raises:
        ConfigError: If the feature has another number of axes.
    """
    maps = feature if timed else feature.unsqueeze(0)
    if maps.ndim == 3:
        return maps[..., None, None]
    if maps.ndim == 4:
        return maps.unsqueeze(-2)
    if maps.ndim != 5:
        raise ConfigError(
            f"a feature of shape {tuple(feature.shape)} is no vector, sequence or map; tap one of "
            f"{'[T, B, D] or [T, B, C, H, W]' if timed else '[B, D] or [B, C, H, W]'}"
        )
    return maps


def align_time(
    student: Tensor,
    teacher: Tensor,
    how: TimeAlignment = "auto",
    student_real: Tensor | None = None,
    teacher_real: Tensor | None = None,
) -> Pair:
    """Gives both features one time axis.

    Args:
        student: `[T, B, C, H, W]`.
        teacher: `[T', B, C', H', W']`.
        how: `mean` averages each over its own time. `step` compares step by step, with a teacher of one step repeated.
            `auto` does that where both have the same number of steps above one, and averages where they differ.
            `positions` averages over the map and lets the time steps be the positions of a one-row map
            `[1, B, C, 1, T]`, so that `same_size` averages the finer time into the coarser.
        student_real: True where the student's step is not padding, `[T, B]`; padded steps count nowhere.
        teacher_real: The same of the teacher, `[T', B]`.

    Returns:
        The pair; `real` is set only for `step`.

    Raises:
        ConfigError: If the batches differ, or `step` meets two different numbers of steps.
    """
    if student.shape[1] != teacher.shape[1]:
        raise ConfigError(
            f"features of {student.shape[1]} student samples and {teacher.shape[1]} teacher samples; "
            "both networks must see the same batch, and features must be [T, B, ...]"
        )
    steps, others = len(student), len(teacher)
    if how == "auto":
        how = "step" if steps == others > 1 else "mean"
    if how == "step":
        if others not in (1, steps):
            raise ConfigError(
                f"time: step compares steps, but the student's feature has {steps} and the teacher's {others}; "
                "use time: mean or auto, or give both the same number"
            )
        return Pair(student, teacher.expand(steps, -1, -1, -1, -1), student_real)
    if how == "positions":
        return Pair(_time_as_row(student, student_real), _time_as_row(teacher, teacher_real))
    return Pair(mean_over_time(student, student_real), mean_over_time(teacher, teacher_real))


def mean_over_time(maps: Tensor, real: Tensor | None = None) -> Tensor:
    """Averages over the steps that are not padding.

    Args:
        maps: `[T, B, C, H, W]`.
        real: True where a step is not padding, `[T, B]`; None where all are real.

    Returns:
        `[1, B, C, H, W]`; zero for a sample without a real step.
    """
    if real is None:
        return maps.mean(0, keepdim=True)
    weight = real.to(maps.dtype)[:, :, None, None, None]
    return (maps * weight).sum(0, keepdim=True) / weight.sum(0, keepdim=True).clamp_min(1.0)


def _time_as_row(maps: Tensor, real: Tensor | None) -> Tensor:
    """`[T, B, C, H, W]` averaged over its map, then `[1, B, C, 1, T]`; padded steps are zero."""
    vectors = maps.mean((-2, -1))  # [T, B, C]
    if real is not None:
        vectors = vectors * real.unsqueeze(-1)
    return vectors.permute(1, 2, 0)[None, :, :, None]


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Averages the finer of two maps down to the coarser, axis by axis; a vector is a map of one position.

    Args:
        student: `[N, C, H, W]`.
        teacher: `[N, C', H', W']`.

    Returns:
        Both, with height `min(H, H')` and width `min(W, W')`.

    Raises:
        ConfigError: If a sequence of positions (one row) meets a map of several rows.
    """
    sizes = student.shape[-2:], teacher.shape[-2:]
    if sizes[0] == sizes[1]:
        return student, teacher
    one_row = [size[0] == 1 and size[1] > 1 for size in sizes]
    if any(row and size[0] > 1 for row, size in zip(one_row, reversed(sizes), strict=True)):
        raise ConfigError(
            f"a sequence and a map cannot be laid over each other (student {tuple(sizes[0])}, teacher "
            f"{tuple(sizes[1])} positions); name other taps, or use time: positions"
        )
    size = (min(sizes[0][0], sizes[1][0]), min(sizes[0][1], sizes[1][1]))
    return _pooled(student, size), _pooled(teacher, size)


def _pooled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Averages `[N, C, H, W]` down to a size that is not finer."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    if size == (1, 1):  # the usual case, and unlike adaptive pooling deterministic on a GPU
        return maps.mean((-2, -1), keepdim=True)
    return functional.adaptive_avg_pool2d(maps, size)


@full_precision
def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared Frobenius distance, summed over everything but the samples, mean over these: `||S - F||_F^2 / N`.

    The reduction of the BKDSNN code for KDSNN, LaSNN and BKD. It grows with channels and positions, so a weight found
    for one tap does not fit another. No detaching: the caller decides.

    Args:
        student: `[N, ...]`.
        teacher: `[N, ...]`, the same shape.

    Returns:
        A scalar; 0 where N is 0.
    """
    return (student - teacher).square().sum() / max(1, len(student))


@full_precision
def mean_squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of the squared differences over everything, as HDKD has it. No detaching: the caller decides.

    Args:
        student: Any shape.
        teacher: The same shape.

    Returns:
        A scalar; 0 for empty tensors.
    """
    return (student - teacher).square().sum() / max(1, student.numel())


def rescale_range(teacher: Tensor, student: Tensor) -> Tensor:
    """Scales a teacher's feature to the student's range: `F * max(S) / max(F)`, maxima over the whole batch.

    The BKDSNN code's `use_clip`, off in all its scripts. There the student receives a gradient through its maximum;
    here it does not, and a maximum that is not positive leaves the teacher as it is (both ours).

    Args:
        teacher: Any shape.
        student: Any shape.

    Returns:
        The scaled teacher, in its shape, without gradient to the student.
    """
    if teacher.numel() == 0:
        return teacher
    top, own = student.detach().amax(), teacher.amax()
    usable = (top > 0) & (own > 0)
    return teacher * torch.where(usable, top / torch.where(usable, own, 1.0), 1.0)
