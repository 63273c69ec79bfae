"""Relatives of Hinton's loss on class scores: weighted soft labels, decoupled distillation, DIST."""

import torch
from torch import Tensor
from torch.nn import functional

from sdsnn_lightning.losses.consistency import hit_probability
from sdsnn_lightning.losses.logits import check_logits, full_precision, kl_divergence


def focal_weight(teacher_logits: Tensor, student_logits: Tensor, target: Tensor) -> Tensor:
    """How much a sample's soft label counts in `weighted_soft_labels`: `1 - exp(-CE_student / (CE_teacher + 1e-7))`.

    Near 1 where the teacher knows better, near 0 where the student is sure already. Both cross-entropies at temperature
    1, with hard labels, and without gradient.

    Args:
        teacher_logits: `[B, K]`.
        student_logits: `[B, K]`.
        target: Class indices `[B]`, int64, or probabilities `[B, K]` (mixed samples).

    Returns:
        `[B]`, in [0, 1].
    """
    student = functional.cross_entropy(student_logits.detach(), target, reduction="none")
    teacher = functional.cross_entropy(teacher_logits.detach(), target, reduction="none")
    return -torch.expm1(-(student / (teacher + 1e-7)).clamp_min(0.0))


@full_precision
def weighted_soft_labels(
    teacher_logits: Tensor, student_logits: Tensor, target: Tensor, temperature: float = 2.0
) -> Tensor:
    """Weighted soft-label distillation, the logits half of BKDSNN (Xu et al., ECCV 2024): its released code's form.

    `tau^2 mean_b(w_b H_b)`, `H = -sum_k softmax(z_teacher / tau)_k log_softmax(z_student / tau)_k` and w from
    `focal_weight`. H is the cross-entropy, not the divergence: for given weights the least value is
    `tau^2 mean(w H(p_teacher))`, reached where the student equals the teacher.

    Args:
        teacher_logits: `[B, K]`; receives no gradient.
        student_logits: `[B, K]`.
        target: Class indices `[B]`, int64, or probabilities `[B, K]`.
        temperature: tau, positive; 2 in the code.

    Returns:
        A scalar.

    Raises:
        ConfigError: If the shapes differ or the temperature is not positive.
    """
    check_logits(teacher_logits, student_logits, temperature)
    weight = focal_weight(teacher_logits, student_logits, target)
    soft = (teacher_logits.detach() / temperature).softmax(-1)
    cross = -(soft * (student_logits / temperature).log_softmax(-1)).sum(-1)
    return temperature**2 * (weight * cross).mean()


@full_precision
def decoupled_distillation(
    teacher_logits: Tensor,
    student_logits: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Decoupled knowledge distillation (Zhao et al., CVPR 2022, arXiv 2203.08679, eq 7): `alpha TCKD + beta NCKD`.

    TCKD is the divergence of (p_target, 1 - p_target), NCKD that of the probabilities among the other classes, each
    times tau^2. Hinton's loss is `TCKD + (1 - p_target) NCKD` with the teacher's p.

    Args:
        teacher_logits: `[B, K]`; receives no gradient.
        student_logits: `[B, K]`.
        target: Class indices `[B]`, int64.
        alpha: Weight of TCKD.
        beta: Weight of NCKD, which is always 0 with two classes.
        temperature: tau, positive.

    Returns:
        A scalar, the mean over the batch.

    Raises:
        ConfigError: If the shapes differ or the temperature is not positive.
    """
    check_logits(teacher_logits, student_logits, temperature)
    others = ~functional.one_hot(target, teacher_logits.shape[-1]).bool()
    rest = [z[others].unflatten(0, (len(target), -1)) for z in (teacher_logits.detach(), student_logits)]  # [B, K-1]
    nckd = temperature**2 * kl_divergence(rest[0], rest[1], temperature)
    return alpha * hit_probability(teacher_logits, student_logits, target, temperature) + beta * nckd


@full_precision
def relational_distillation(
    teacher_logits: Tensor,
    student_logits: Tensor,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 4.0,
) -> Tensor:
    """DIST (Huang et al., NeurIPS 2022, arXiv 2205.10536): keeps relations of probabilities, not their values.

    `tau^2 (beta inter + gamma intra)` on `softmax(z / tau)`. `inter` is the mean over samples of 1 minus the Pearson
    correlation between the two networks' class probabilities; `intra` the same over the batch, class by class.

    A row without any spread in one of the networks (a batch of one, for `intra`) has no correlation and counts nowhere
    (ours).

    Args:
        teacher_logits: `[B, K]`; receives no gradient.
        student_logits: `[B, K]`.
        beta: Weight of `inter`.
        gamma: Weight of `intra`.
        temperature: tau, positive.

    Returns:
        A scalar in `[0, 2 tau^2 (beta + gamma)]`.

    Raises:
        ConfigError: If the shapes differ or the temperature is not positive.
    """
    check_logits(teacher_logits, student_logits, temperature)
    teacher = (teacher_logits.detach() / temperature).softmax(-1)
    student = (student_logits / temperature).softmax(-1)
    inter, intra = _pearson_distance(student, teacher), _pearson_distance(student.mT, teacher.mT)
    return temperature**2 * (beta * inter + gamma * intra)


def _pearson_distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean over rows of 1 minus Pearson's correlation of `[R, F]` and `[R, F]`; rows without spread are left out."""
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    own, other = x.square().sum(-1), y.square().sum(-1)  # [R]
    spread = (own > 1e-12) & (other > 1e-12)  # what lies below is the rounding of float32
    correlation = (x * y).sum(-1) / torch.where(spread, own * other, 1.0).sqrt()
    return torch.where(spread, 1.0 - correlation, 0.0).sum() / spread.sum().clamp_min(1)
