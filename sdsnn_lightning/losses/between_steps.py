"""Losses by which the time steps of one spiking network teach each other."""

import math
from typing import Literal

import torch
from torch import Tensor

from sdsnn_lightning.losses.logits import full_precision, kl_divergence

Direction = Literal["strong_to_weak", "weak_to_strong"]
Variant = Literal["single", "ensemble_teacher", "ensemble_student", "simultaneous", "cascade"]


@full_precision
def step_confidence(logits: Tensor) -> Tensor:
    """Confidence of every step (Ding et al., NeurIPS 2025): `c_t = mean_b max_k softmax(z_t)_k`.

    Args:
        logits: `[T, B, K]`.

    Returns:
        `[T]`, in [1/K, 1], without gradient.
    """
    return logits.detach().softmax(-1).amax(-1).mean(-1)


@full_precision
def strong_weak_distillation(
    logits: Tensor,
    direction: Direction = "weak_to_strong",
    variant: Variant = "single",
    temperature: float = 2.0,
    detach: bool = True,
) -> Tensor:
    """Temporal self-distillation between the surest and the least sure step (Ding et al., NeurIPS 2025).

    With s and w the steps of highest and lowest `step_confidence` in the batch, strong-to-weak is
    `KL(softmax(z_s / tau) || softmax(z_w / tau))`; weak-to-strong swaps the roles. tau 2 and the missing factor tau^2
    are the paper's; whether its teacher side is detached is not stated.

    Variants (named in the paper; how `simultaneous` is formed is our reading): `single` as above; `ensemble_teacher`:
    the mean logits of all other steps teach; `ensemble_student`: the mean of all other steps learns; `simultaneous`:
    the sum of both directions; `cascade`: neighbours in the order of confidence teach each other, divided by T - 1.

    Args:
        logits: `[T, B, K]`.
        direction: Which of the two steps teaches. Without effect on `simultaneous`.
        variant: As above.
        temperature: tau, positive.
        detach: Whether the teaching side receives no gradient.

    Returns:
        A scalar, the mean over the batch; 0 for a single step.

    Raises:
        ConfigError: If the temperature is not positive.
    """
    steps = len(logits)
    if steps == 1:
        return logits.sum() * 0.0
    order = step_confidence(logits).argsort(descending=True)
    ranked = logits.index_select(0, order)  # the surest first
    if direction == "weak_to_strong":
        ranked = ranked.flip(0)  # whoever teaches first
    teacher, student = ranked[:1], ranked[-1:]
    if variant == "ensemble_teacher":
        teacher = ranked[:-1].mean(0, keepdim=True)
    elif variant == "ensemble_student":
        student = ranked[1:].mean(0, keepdim=True)
    elif variant == "cascade":
        teacher, student = ranked[:-1], ranked[1:]
    elif variant == "simultaneous":
        teacher, student = torch.stack([ranked[0], ranked[-1]]), torch.stack([ranked[-1], ranked[0]])
    teacher = teacher.detach() if detach else teacher
    divergence = kl_divergence(teacher, student, temperature)  # the mean over pairs and samples
    return 2.0 * divergence if variant == "simultaneous" else divergence


@full_precision
def knowledge_sharing(logits: Tensor, target: Tensor, temperature: float = 2.0) -> Tensor:
    """Right steps teach wrong ones (temporal knowledge sharing, Dong et al., IEEE TAI 2024, arXiv 2304.06540).

    That right steps teach wrong ones is the paper's. Ours: the teacher is the mean logits of a sample's right steps,
    without gradient; every wrong step takes `tau^2 KL(p_right || p_t)`; the mean is over those steps only.

    Args:
        logits: `[T, B, K]`.
        target: Class indices `[B]`, int64.
        temperature: tau, positive.

    Returns:
        A scalar; 0 with zero gradient where no sample has both right and wrong steps.

    Raises:
        ConfigError: If the temperature is not positive.
    """
    right = logits.detach().argmax(-1) == target  # [T, B]
    known = right.sum(0)  # [B]
    shared = torch.where(right.unsqueeze(-1), logits.detach(), 0.0).sum(0) / known.clamp(min=1).unsqueeze(-1)
    taught = ~right & (known > 0)
    divergence = kl_divergence(shared.expand_as(logits), logits, temperature, reduction="none")  # [T, B]
    return temperature**2 * (divergence * taught).sum() / taught.sum().clamp(min=1)


@full_precision
def error_aligned_distillation(
    teacher_logits: Tensor, student_logits: Tensor, target: Tensor, temperature: float = 3.0
) -> Tensor:
    """Error-aware alignment, the teacher's half of SeAl-KD (Sun, Duan et al., arXiv 2605.14252), as its code has it.

    Where a step answers w instead of the target y, its logit w is replaced by logit y, and the teacher's logits y and w
    both by the lesser of the two: nothing is to be learnt from the order of these two classes. Then
    `(1/T) sum_t tau^2 KL(p_teacher || p_student_t)`. tau 3 is the code's.

    Args:
        teacher_logits: `[B, K]` or `[T, B, K]`.
        student_logits: `[T, B, K]`.
        target: Class indices `[B]`, int64.
        temperature: tau, positive.

    Returns:
        A scalar; 0 where the student equals the teacher.

    Raises:
        ConfigError: If the shapes do not fit or the temperature is not positive.
    """
    teacher = teacher_logits.detach()
    if teacher.ndim == student_logits.ndim - 1:
        teacher = teacher.expand(len(student_logits), *teacher.shape)
    kl_divergence(teacher, student_logits, temperature)  # raises with the shapes
    answer = student_logits.detach().argmax(-1, keepdim=True)  # [T, B, 1]
    label = target.expand(len(student_logits), -1).unsqueeze(-1)  # [T, B, 1]
    # Where the answer is right both indices agree, and the replacements change nothing.
    student = student_logits.scatter(-1, answer, student_logits.gather(-1, label))
    lesser = torch.minimum(teacher.gather(-1, label), teacher.gather(-1, answer))
    teacher = teacher.scatter(-1, answer, lesser).scatter(-1, label, lesser)
    return temperature**2 * kl_divergence(teacher, student, temperature)


@full_precision
def selective_alignment(logits: Tensor, temperature: float = 3.0) -> Tensor:
    """Selective alignment, the steps' half of SeAl-KD (Sun, Duan et al., arXiv 2605.14252), as its code has it.

    Step t learns from a mixture of the other steps, `sum_j a_tj z_j` without gradient, with
    `a_t = softmax_{j != t}(conf_j cos(z_t, z_j))` and `conf_j = 1 - H(softmax z_j) / ln K`.

    Args:
        logits: `[T, B, K]`.
        temperature: tau, positive; 3 in the code.

    Returns:
        A scalar, the mean over steps and samples of `tau^2 KL`; 0 for a single step and where all steps agree.

    Raises:
        ConfigError: If the temperature is not positive.
    """
    if len(logits) == 1:
        return logits.sum() * 0.0
    z = logits.detach().transpose(0, 1)  # [B, T, K]
    log_p = z.log_softmax(-1)
    sure = 1.0 + (log_p.exp() * log_p).sum(-1) / math.log(z.shape[-1])  # [B, T]
    unit = torch.nn.functional.normalize(z, dim=-1)
    scores = sure.unsqueeze(1) * (unit @ unit.mT)  # [B, T, T], over j in the last axis
    itself = torch.eye(len(logits), dtype=torch.bool, device=z.device)
    mixture = scores.masked_fill(itself, -torch.inf).softmax(-1) @ z  # [B, T, K]
    return temperature**2 * kl_divergence(mixture.transpose(0, 1), logits, temperature)
