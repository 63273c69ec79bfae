"""Penalties on spikes and logits, and forms of response distillation (Louis et al., ICANN 2024, arXiv 2406.18350)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.logits import distillation_loss, full_precision

Response = Literal["mse", "soft", "soft_mse"]


def activity_penalty(spikes: Sequence[Tensor], norm: Literal["l1", "l2"] = "l1") -> Tensor:
    """Sum over layers of the firing rate, or of its square.

    `sum_l r_l` or `sum_l r_l^2` with `r_l = sum(S_l) / (T B N_l)`. That activations are penalised is the paper's; norm
    and normalisation are ours. By layers, a small layer weighs as much as a large one.

    Args:
        spikes: One tensor per layer, any shape; 0 and 1 (or graded), with gradient.
        norm: `l1` is the rate, `l2` its square, which spares layers that are nearly silent.

    Returns:
        A scalar.

    Raises:
        ConfigError: If there is no layer.
    """
    if not spikes:
        raise ConfigError("activity regularisation: the student has no layer of spiking neurons; take it out")
    rates = torch.stack([layer.float().mean() for layer in spikes])
    return rates.sum() if norm == "l1" else rates.square().sum()


@full_precision
def logit_penalty(logits: Tensor) -> Tensor:
    """Mean square of the logits: `||z||_2^2 / (B K)`.

    The paper's proposal: distillation quiets a network through its logits, so penalise these at once. Normalisation is
    ours.

    Args:
        logits: `[B, K]`, or `[T, B, K]` to penalise every step.

    Returns:
        A scalar. Not invariant to a shift of the logits.
    """
    return logits.square().mean()


@full_precision
def response_distillation(
    teacher_logits: Tensor, student_logits: Tensor, form: Response = "mse", temperature: float = 4.0
) -> Tensor:
    """Three ways to copy a teacher's answer.

    `mse` is `||z_student - z_teacher||^2 / (B K)`, the paper's first form. Its other two use softened targets; their
    exact form is not known to us: `soft` is Hinton's `tau^2 KL`, `soft_mse` is `tau^2 ||p_student - p_teacher||^2 / B`
    of the softened probabilities p. The teacher receives no gradient.

    Args:
        teacher_logits: `[..., K]`.
        student_logits: `[..., K]`, the same shape.
        form: One of the three.
        temperature: tau of the soft forms, positive.

    Returns:
        A scalar; 0 where both agree. `mse` is not invariant to a shift of the logits, the others are.

    Raises:
        ConfigError: If the shapes differ or the temperature is not positive.
    """
    soft = distillation_loss(teacher_logits, student_logits, temperature)  # also checks the arguments
    if form == "soft":
        return soft
    teacher = teacher_logits.detach()
    if form == "mse":
        return (student_logits - teacher).square().mean()
    gap = (student_logits / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    return temperature**2 * gap.square().sum(-1).mean()
