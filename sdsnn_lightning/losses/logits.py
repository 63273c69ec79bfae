"""Losses between two sets of logits. Pure functions, computed in float32 at least, whatever autocast does."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from sdsnn_lightning.errors import ConfigError


def full_precision(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Computes a loss outside autocast, with half-precision tensors turned to float32.

    Softmax tails and cosine similarities lose what distillation lives on in 8 or 11 bits of mantissa.

    Args:
        loss: A function of tensors and other arguments whose first argument is a tensor.

    Returns:
        The same function, in full precision. Gradients come back in the dtype of the inputs.
    """

    def widen(value: Any) -> Any:
        half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        return value.float() if half else value

    @functools.wraps(loss)
    def wrapped(*args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast(args[0].device.type, enabled=False):
            return loss(*map(widen, args), **{key: widen(value) for key, value in kwargs.items()})

    return wrapped


@full_precision
def kl_divergence(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float = 1.0,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Kullback-Leibler divergence KL(p_teacher || p_student) of softened class probabilities, in nats.

    `p = softmax(logits / temperature)`. No factor of temperature squared, and no detaching: the caller decides.

    Args:
        teacher_logits: `[..., K]`.
        student_logits: `[..., K]`, the same shape.
        temperature: Divides both sets of logits; positive.
        reduction: `mean` over everything but the classes, or `none`.

    Returns:
        A scalar, or `[...]` with `none`; never negative up to rounding.

    Raises:
        ConfigError: If the shapes differ or the temperature is not positive.
    """
    check_logits(teacher_logits, student_logits, temperature)
    teacher = (teacher_logits / temperature).log_softmax(-1)
    student = (student_logits / temperature).log_softmax(-1)
    divergence = (teacher.exp() * (teacher - student)).sum(-1)
    return divergence.mean() if reduction == "mean" else divergence


def distillation_loss(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """Knowledge distillation of Hinton et al. (arXiv 1503.02531, section 2): tau^2 KL(p_teacher || p_student).

    The factor tau^2 keeps the gradient's size independent of the temperature. The teacher receives no gradient.

    Args:
        teacher_logits: `[..., K]`.
        student_logits: `[..., K]`, the same shape.
        temperature: tau, positive.

    Returns:
        A scalar, the mean over everything but the classes.

    Raises:
        ConfigError: If the shapes differ or the temperature is not positive.
    """
    return temperature**2 * kl_divergence(teacher_logits.detach(), student_logits, temperature)


@full_precision
def entropy_weighted_distillation(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """`distillation_loss` with every sample weighted by the entropy of the student's answer, in [0, 1].

    `tau^2 mean(H(softmax(z_student)) / ln K * KL(p_teacher || p_student))`: what the student is sure of teaches it
    less. In the official code of KDCL (arXiv 2412.12858), unused there; as there, the temperature softens the
    divergence but not the weight, and the gradient also flows through the weight.

    Args:
        teacher_logits: `[..., K]`.
        student_logits: `[..., K]`, the same shape.
        temperature: tau, positive.

    Returns:
        A scalar, the mean over everything but the classes.

    Raises:
        ConfigError: If the shapes differ or the temperature is not positive.
    """
    divergence = kl_divergence(teacher_logits.detach(), student_logits, temperature, reduction="none")
    student = student_logits.log_softmax(-1)
    entropy = -(student.exp() * student).sum(-1) / math.log(student.shape[-1])
    return temperature**2 * (entropy * divergence).mean()


def check_logits(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> None:
    """Refuses what broadcasting would hide.

    Args:
        teacher_logits: `[..., K]`.
        student_logits: `[..., K]`.
        temperature: tau.

    Raises:
        ConfigError: If the shapes differ or the temperature is not positive.
    """
    if teacher_logits.shape != student_logits.shape:
        raise ConfigError(
            f"teacher logits {tuple(teacher_logits.shape)} and student logits {tuple(student_logits.shape)} differ; "
            "give both networks the same classes and time steps, or compare read-outs"
        )
    if temperature <= 0:
        raise ConfigError(f"temperature: {temperature} must be positive")
