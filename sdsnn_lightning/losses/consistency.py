"""Hit consistency and temporal consistency, the two distillation terms of MSKD (Wang et al., IJCAI 2024).

The paper's total is `(1 - alpha) L_cls + alpha L_HCKD + alpha L_TCKD`. Its equations of the two terms are not public:
every reading here is ours, and the letter says which. The teacher never receives a gradient.
"""

from typing import Literal

import torch
from torch import Tensor

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.logits import full_precision, kl_divergence
from sdsnn_lightning.losses.relations import normalise


def hits(teacher_logits: Tensor, target: Tensor) -> Tensor:
    """Where the teacher is right.

    Args:
        teacher_logits: `[B, K]`, or `[T, B, K]` to judge every step.
        target: Class indices `[B]`, int64.

    Returns:
        Booleans `[B]` or `[T, B]`.
    """
    return teacher_logits.argmax(-1) == target


@full_precision
def hit_consistency(teacher_logits: Tensor, student_logits: Tensor, target: Tensor, temperature: float = 2.0) -> Tensor:
    """Distils only what the teacher gets right: reading A on read-outs, reading C on the logits of every step.

    `tau^2 * sum(m * KL(p_teacher || p_student)) / max(1, sum(m))`, with m = 1 where the teacher hits the target.

    Args:
        teacher_logits: `[B, K]` (reading A) or `[T, B, K]` (reading C).
        student_logits: The same shape.
        target: Class indices `[B]`, int64.
        temperature: tau, positive.

    Returns:
        A scalar; 0 with zero gradient where the teacher never hits.

    Raises:
        ConfigError: If the shapes differ or the temperature is not positive.
    """
    teacher_logits = teacher_logits.detach()
    mask = hits(teacher_logits, target).to(student_logits.dtype)
    divergence = kl_divergence(teacher_logits, student_logits, temperature, reduction="none")  # [B] or [T, B]
    return temperature**2 * (mask * divergence).sum() / mask.sum().clamp_min(1.0)


@full_precision
def hit_probability(teacher_logits: Tensor, student_logits: Tensor, target: Tensor, temperature: float = 2.0) -> Tensor:
    """Matches the probability of hitting, reading B: tau^2 KL between (p_y, 1 - p_y) of teacher and student.

    This is the target-class half of decoupled knowledge distillation (Zhao et al., CVPR 2022, eq 5). Every sample
    counts, hit or not.

    Args:
        teacher_logits: Read-outs `[B, K]`.
        student_logits: Read-outs `[B, K]`.
        target: Class indices `[B]`, int64.
        temperature: tau, positive.

    Returns:
        A scalar, the mean over the batch.

    Raises:
        ConfigError: If the shapes differ or the temperature is not positive.
    """
    teacher = _log_hit_and_miss(teacher_logits.detach(), target, temperature)
    student = _log_hit_and_miss(student_logits, target, temperature)
    # The two log-probabilities are logits of their own softmax.
    return temperature**2 * kl_divergence(teacher, student)


def _log_hit_and_miss(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Log-probabilities `[B, 2]` of the target and of all else; log(1 - p) without cancellation for a sure network."""
    if temperature <= 0:
        raise ConfigError(f"temperature: {temperature} must be positive")
    log_p = (logits / temperature).log_softmax(-1)
    chosen = torch.nn.functional.one_hot(target, logits.shape[-1]).bool()
    miss = log_p.masked_fill(chosen, -torch.inf).logsumexp(-1)
    return torch.stack([log_p[chosen], miss], -1)


@full_precision
def step_consistency(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float = 2.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Distils the logits of every time step, reading A: tau^2 times the mean over samples and steps of the KL.

    Args:
        teacher_logits: `[T, B, K]`.
        student_logits: `[T, B, K]`.
        temperature: tau, positive.
        weights: `[T, B]`, summing to 1 over the steps, from `confidence`; 1 / T where None.

    Returns:
        A scalar.

    Raises:
        ConfigError: If the shapes differ or the temperature is not positive.
    """
    divergence = kl_divergence(teacher_logits.detach(), student_logits, temperature, reduction="none")  # [T, B]
    return temperature**2 * _mean_over_steps(divergence, weights)


@full_precision
def relation_consistency(teacher: Tensor, student: Tensor) -> Tensor:
    """Matches how the steps of a clip relate, reading B: mean over samples of ||G_teacher - G_student||_F^2 / T^2.

    `G[b]` holds the T x T cosine similarities between the steps of sample b, so the widths need not agree. A silent
    step (all zero) is similar to nothing and receives no gradient.

    Args:
        teacher: Logits or features `[T, B, ...]`.
        student: Logits or features `[T, B, ...]`, the same T and B.

    Returns:
        A scalar.

    Raises:
        ConfigError: If time steps or batch sizes differ.
    """
    if teacher.shape[:2] != student.shape[:2]:
        raise ConfigError(
            f"teacher {tuple(teacher.shape)} and student {tuple(student.shape)} differ in time steps or batch; "
            "relations between steps need the same clip"
        )
    return (_similarity(teacher.detach()) - _similarity(student)).square().mean()


def _similarity(x: Tensor) -> Tensor:
    """Cosine similarities `[B, T, T]` between the steps of `x` `[T, B, ...]`."""
    unit = normalise(x.flatten(2).transpose(0, 1))  # [B, T, F]
    return unit @ unit.mT


@full_precision
def change_consistency(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float = 2.0,
    weights: Tensor | None = None,
    distance: Literal["mse", "kl"] = "mse",
) -> Tensor:
    """Matches what each step adds, reading C: distance of `d_t = z_{t+1} - z_t`, averaged over the T - 1 changes.

    Args:
        teacher_logits: `[T, B, K]`, T at least 2.
        student_logits: `[T, B, K]`.
        temperature: tau of `kl`; without effect on `mse`.
        weights: `[T, B]` from `confidence`; a change counts by the step it leads to. Equal where None.
        distance: `mse` is the mean over classes of the squared difference of the changes; `kl` is
            tau^2 KL(softmax(d_teacher / tau) || softmax(d_student / tau)).

    Returns:
        A scalar.

    Raises:
        ConfigError: If the shapes differ, there is one step only, or the temperature is not positive.
    """
    if len(student_logits) < 2:
        raise ConfigError("temporal consistency, reading C: one time step has no change; use 2 or more, or reading A")
    if teacher_logits.shape != student_logits.shape:
        kl_divergence(teacher_logits, student_logits)  # raises with the shapes
    teacher, student = teacher_logits.detach().diff(dim=0), student_logits.diff(dim=0)  # [T-1, B, K]
    if distance == "mse":
        per_change = (teacher - student).square().mean(-1)
    else:
        per_change = temperature**2 * kl_divergence(teacher, student, temperature, reduction="none")
    if weights is not None:
        weights = weights[1:] / weights[1:].sum(0, keepdim=True)
    return _mean_over_steps(per_change, weights)


@full_precision
def confidence(teacher_logits: Tensor, target: Tensor) -> Tensor:
    """Temporal weights: each step's share of the teacher's probability of the target.

    Args:
        teacher_logits: `[T, B, K]`.
        target: Class indices `[B]`, int64.

    Returns:
        `[T, B]`, summing to 1 over the steps, without gradient.
    """
    index = target.expand(len(teacher_logits), -1).unsqueeze(-1)  # [T, B, 1]
    log_p = teacher_logits.detach().log_softmax(-1).gather(-1, index).squeeze(-1)
    return log_p.softmax(0)  # p_t / sum_t p_t, also where all p underflow


def _mean_over_steps(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over samples of `[T, B]`, steps weighted equally or by `weights` that sum to 1 over T."""
    return values.mean() if weights is None else (weights * values).sum(0).mean()
