"""Losses on the logits of every time step, with or without a teacher. The teacher never receives a gradient."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.logits import full_precision, kl_divergence

Ensemble = Literal["all", "correct"]


@full_precision
def stepwise_cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every step, averaged over steps and samples: `(1/T) sum_t CE(z_t, y)`.

    Called L_TWCE in Yu et al. (ICML 2025, arXiv 2501.15925) and L_TET in Deng et al. (ICLR 2022, arXiv 2202.11946).
    Convexity makes it an upper bound of the cross-entropy of the mean logits.

    Args:
        logits: `[T, B, K]`.
        target: Class indices `[B]`, int64, or probabilities `[B, K]` (mixed samples).
        label_smoothing: Of the cross-entropy, in [0, 1).

    Returns:
        A scalar.
    """
    labels = target.repeat(len(logits), *[1] * (target.ndim - 1))
    return functional.cross_entropy(logits.flatten(0, 1), labels, label_smoothing=label_smoothing)


@full_precision
def tet_loss(
    logits: Tensor, target: Tensor, regularisation: float = 0.05, level: float = 1.0, label_smoothing: float = 0.0
) -> Tensor:
    """Temporal efficient training (Deng et al., ICLR 2022, arXiv 2202.11946).

    `(1 - lambda) (1/T) sum_t CE(z_t, y) + lambda mean((z - level)^2)`; the second part keeps single outputs from
    running away. The form is the paper's; it sets the level to the firing threshold. `lambda = 0.05` is our default.

    Args:
        logits: `[T, B, K]`.
        target: Class indices `[B]`, int64.
        regularisation: lambda, in [0, 1]; 0 is cross-entropy at every step alone.
        level: What every output is drawn to.
        label_smoothing: Of the cross-entropy, in [0, 1).

    Returns:
        A scalar. Not invariant to a shift of the logits unless lambda is 0.
    """
    entropy = stepwise_cross_entropy(logits, target, label_smoothing)
    return (1.0 - regularisation) * entropy + regularisation * (logits - level).square().mean()


@full_precision
def stepwise_distillation(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 3.0) -> Tensor:
    """Distils every step of the student: `(1/T) sum_t tau^2 KL(p_teacher || p_student_t)`, mean over samples.

    L_TWKL of Yu et al. (ICML 2025) and, with a teacher averaged over its frames, the step-wise distillation of HSD
    (Zhong et al., arXiv 2409.12507). Never below the divergence from the student's mean logits.

    Args:
        teacher_logits: `[B, K]`, the same for every step, or `[T, B, K]`.
        student_logits: `[T, B, K]`.
        temperature: tau, positive.

    Returns:
        A scalar.

    Raises:
        ConfigError: If the shapes do not fit or the temperature is not positive.
    """
    teacher = teacher_logits.detach()
    if teacher.ndim == student_logits.ndim - 1:
        teacher = teacher.expand(len(student_logits), *teacher.shape)
    return temperature**2 * kl_divergence(teacher, student_logits, temperature)


@full_precision
def ensemble_logits(logits: Tensor, target: Tensor, ensemble: Ensemble = "all") -> Tensor:
    """Joins the steps to one set of logits.

    Args:
        logits: `[T, B, K]`.
        target: Class indices `[B]`, int64.
        ensemble: `all` averages all steps, as the text of Yu et al. (ICML 2025) has it. `correct` averages the steps
            whose answer is the target, as their code has it; where there is none, all logits are 0, which stands for
            the uniform distribution.

    Returns:
        `[B, K]`.
    """
    if ensemble == "all":
        return logits.mean(0)
    right = (logits.argmax(-1) == target).unsqueeze(-1)  # [T, B, 1]
    return torch.where(right, logits, 0.0).sum(0) / right.sum(0).clamp(min=1)


def self_ensemble_distillation(
    logits: Tensor, target: Tensor, temperature: float = 3.0, ensemble: Ensemble = "all"
) -> Tensor:
    """Every step learns from the joined steps: L_TWSD of Yu et al. (ICML 2025), `ensemble_logits` without gradient.

    Args:
        logits: `[T, B, K]`.
        target: Class indices `[B]`, int64.
        temperature: tau, positive.
        ensemble: See `ensemble_logits`.

    Returns:
        A scalar; 0 where all steps agree (and, with `correct`, are right).

    Raises:
        ConfigError: If the temperature is not positive.
    """
    return stepwise_distillation(ensemble_logits(logits.detach(), target, ensemble), logits, temperature)


@full_precision
def mean_entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of softened class probabilities in nats, averaged over everything but the classes.

    Args:
        logits: `[..., K]`.
        temperature: tau, positive.

    Returns:
        A scalar in [0, ln K].

    Raises:
        ConfigError: If the temperature is not positive.
    """
    if temperature <= 0:
        raise ConfigError(f"temperature: {temperature} must be positive")
    log_p = (logits / temperature).log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean()


@full_precision
def head_tail_divergence(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float = 2.0, head: float = 0.5
) -> Tensor:
    """Head-tail-aware divergence (HTA-KL, Zhang et al., arXiv 2504.20445), in our reading.

    With p and q the softened probabilities of teacher and student, the head is the smallest set of the teacher's top
    classes whose probabilities add up to `head`; the gaps are `e_h = sum_head |p - q|` and `e_t = sum_tail |p - q|`:
    `tau^2 mean(e_h / (e_h + e_t) KL(p || q) + e_t / (e_h + e_t) KL(q || p))`.

    That head and tail are told apart by cumulative probability, and that forward and reverse divergence are weighted by
    the gaps, is the paper's; the exact form follows the like-minded adaptive divergence for language models
    (arXiv 2404.02657). The gradient does not flow through the weights (ours).

    Args:
        teacher_logits: `[..., K]`.
        student_logits: `[..., K]`, the same shape.
        temperature: tau, positive; our default.
        head: Cumulative probability of the head, in (0, 1); our default.

    Returns:
        A scalar, the mean over everything but the classes; 0 where both agree.

    Raises:
        ConfigError: If the shapes differ, or a number is out of its range.
    """
    if not 0 < head < 1:
        raise ConfigError(f"head: {head} must lie between 0 and 1")
    teacher = teacher_logits.detach()
    forward = kl_divergence(teacher, student_logits, temperature, reduction="none")
    reverse = kl_divergence(student_logits, teacher, temperature, reduction="none")
    with torch.no_grad():
        p, q = (teacher / temperature).softmax(-1), (student_logits / temperature).softmax(-1)
        p, order = p.sort(-1, descending=True)
        gap = (p - q.gather(-1, order)).abs()
        # A class is of the head if those before it do not reach the share yet: the top one always is.
        in_head = p.cumsum(-1) - p < head
        head_gap, tail_gap = (gap * in_head).sum(-1), (gap * ~in_head).sum(-1)
        share = head_gap / (head_gap + tail_gap).clamp(min=torch.finfo(gap.dtype).tiny)
    return temperature**2 * (share * forward + (1.0 - share) * reverse).mean()


@full_precision
def noise_smoothed_distillation(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float = 2.0,
    noise: float = 0.1,
    mix: Literal["logits", "probabilities"] = "logits",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Noise-smoothed logits distillation, L_NLD (Liu et al., AAAI 2026, arXiv 2511.06902).

    `tau^2 KL(p_teacher || q)`, where noise of the mean and spread of each sample's logits `z` smooths the student's
    answer: `q = softmax((z + noise * e) / tau)` in the paper (`logits`), `q = (1 - noise) softmax(z / tau) + noise *
    softmax(e / tau)` in its code (`probabilities`). tau 2 and noise 0.1 are the paper's. No gradient through the noise
    (ours).

    Args:
        teacher_logits: `[B, K]`.
        student_logits: `[B, K]`.
        temperature: tau, positive.
        noise: Share of the noise, in [0, 1].
        mix: What is smoothed.
        generator: Draws the noise.

    Returns:
        A scalar, the mean over the batch.

    Raises:
        ConfigError: If the shapes differ or the temperature is not positive.
    """
    z = student_logits.detach()
    drawn = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
    drawn = z.mean(-1, keepdim=True) + z.std(-1, keepdim=True, unbiased=False) * drawn
    if mix == "logits":
        smoothed = student_logits + noise * drawn
    else:
        clean = (student_logits / temperature).log_softmax(-1) + (math.log1p(-noise) if noise < 1 else -math.inf)
        blur = (drawn / temperature).log_softmax(-1) + (math.log(noise) if noise > 0 else -math.inf)
        smoothed = temperature * torch.logaddexp(clean, blur)  # log-probabilities are logits of their own softmax
    return temperature**2 * kl_divergence(teacher_logits.detach(), smoothed, temperature)
