"""Where a network looks: class-activation maps of a teacher and spike maps of a student."""

from typing import Literal

import torch
from torch import Tensor

from sdsnn_lightning.losses.features import same_size
from sdsnn_lightning.losses.logits import distillation_loss, full_precision

Normalise = Literal["sample", "batch"]


@full_precision
def class_activation(feature: Tensor, head: Tensor, classes: Tensor) -> Tensor:
    """Class-activation map (Zhou et al., CVPR 2016): `max(0, sum_d w[c, d] F[d])` at every position.

    Args:
        feature: Maps before pooling and classifier, `[B, D, H, W]`.
        head: Weights of the classifier, `[K, D]`.
        classes: The class of every sample `[B]`, int64.

    Returns:
        `[B, H, W]`, not negative.
    """
    return torch.einsum("bdhw,bd->bhw", feature, head[classes]).relu()


def unit_range(maps: Tensor, over: Normalise = "sample") -> Tensor:
    """Moves maps to [0, 1] by their least and greatest value; a constant map becomes 0.

    Args:
        maps: `[B, ...]`.
        over: `sample` takes the extremes of each map (ours), `batch` those of the whole batch (the authors' code).

    Returns:
        The same shape.
    """
    flat = maps.flatten(1) if over == "sample" else maps.flatten()[None]
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    spread = high - low
    return ((flat - low) / torch.where(spread > 0, spread, 1.0)).reshape(maps.shape)


@full_precision
def map_distillation(
    teacher_map: Tensor, student_feature: Tensor, temperature: float = 2.0, normalise: Normalise = "sample"
) -> Tensor:
    """Spiking activation map distillation, L_SAMD (Liu et al., AAAI 2026, arXiv 2511.06902).

    `tau^2 KL(softmax(M_teacher / tau) || softmax(M_student / tau))` over all positions, both maps moved to [0, 1], the
    student's being the sum of its feature over channels (and, before, over time; its scale does not matter). tau 2 is
    the paper's. The finer map is averaged down to the coarser. The teacher receives no gradient.

    Args:
        teacher_map: `[B, H, W]`.
        student_feature: Spike counts or rates `[B, D, H', W']`.
        temperature: tau, positive.
        normalise: Whose extremes are moved to 0 and 1; see `unit_range`.

    Returns:
        A scalar, the mean over the batch; 0 where the maps agree up to scale and shift.

    Raises:
        ConfigError: If the maps cannot be laid over each other, or the temperature is not positive.
    """
    student, teacher = same_size(student_feature.sum(1, keepdim=True), teacher_map.detach().unsqueeze(1))
    teacher, student = unit_range(teacher, normalise).flatten(1), unit_range(student, normalise).flatten(1)
    return distillation_loss(teacher, student, temperature)
