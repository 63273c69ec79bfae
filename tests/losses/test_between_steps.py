"""Losses between the steps of one network, against hand-computed values."""

import math

import pytest
import torch

from sdsnn_lightning.losses.between_steps import (
    error_aligned_distillation,
    knowledge_sharing,
    selective_alignment,
    step_confidence,
    strong_weak_distillation,
)
from sdsnn_lightning.losses.logits import kl_divergence

T, B, K = 4, 5, 3


@pytest.fixture
def z():
    return 2 * torch.randn(T, B, K, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


RANKED = torch.tensor([[[1.0, 0.0]], [[5.0, 0.0]], [[0.0, 0.2]], [[0.0, 2.0]]])  # confidence: step 1, 3, 0, 2


def pair(teacher, student, tau=2.0):
    return kl_divergence(RANKED[teacher], RANKED[student], tau).item()


def test_confidence_by_hand():
    assert step_confidence(RANKED).tolist() == pytest.approx([1 / (1 + math.exp(-x)) for x in (1.0, 5.0, 0.2, 2.0)])


@pytest.mark.parametrize(
    ("direction", "variant", "expected"),
    [
        ("strong_to_weak", "single", pair(1, 2)),
        ("weak_to_strong", "single", pair(2, 1)),
        ("weak_to_strong", "simultaneous", pair(1, 2) + pair(2, 1)),
        ("strong_to_weak", "cascade", (pair(1, 3) + pair(3, 0) + pair(0, 2)) / 3),
        ("weak_to_strong", "cascade", (pair(2, 0) + pair(0, 3) + pair(3, 1)) / 3),
        ("strong_to_weak", "ensemble_teacher", kl_divergence(RANKED[[0, 1, 3]].mean(0), RANKED[2], 2.0).item()),
        ("weak_to_strong", "ensemble_student", kl_divergence(RANKED[2], RANKED[[0, 1, 3]].mean(0), 2.0).item()),
    ],
)
def test_strong_and_weak_steps(direction, variant, expected):
    assert strong_weak_distillation(RANKED, direction, variant).item() == pytest.approx(expected)


@pytest.mark.parametrize("variant", ["single", "ensemble_teacher", "ensemble_student", "simultaneous", "cascade"])
def test_equal_steps_have_nothing_to_learn_and_the_teaching_side_is_detached(z, variant):
    same = z[:1].expand(T, B, K)
    assert strong_weak_distillation(same, variant=variant).item() == pytest.approx(0.0, abs=1e-12)
    assert strong_weak_distillation(z[:1], variant=variant).item() == 0.0
    leaf = z.clone().requires_grad_()
    value = strong_weak_distillation(leaf, "strong_to_weak", variant)
    assert strong_weak_distillation(z + 4.0, "strong_to_weak", variant).item() == pytest.approx(value.item())
    value.backward()
    strongest, weakest = step_confidence(z).argmax(), step_confidence(z).argmin()
    assert leaf.grad[weakest].abs().sum() > 0
    assert bool(leaf.grad[strongest].abs().sum() > 0) == (variant == "simultaneous")
    both = z.clone().requires_grad_()
    strong_weak_distillation(both, "strong_to_weak", variant, detach=False).backward()
    assert both.grad[strongest].abs().sum() > 0


def test_right_steps_teach_wrong_ones():
    steps = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]], [[4.0, 1.0]]])  # answers 0, 1, 0
    taught = 4 * kl_divergence(torch.tensor([[3.0, 0.5]]), steps[1], 2.0)
    assert knowledge_sharing(steps, torch.tensor([0])).item() == pytest.approx(taught.item())
    leaf = steps.clone().requires_grad_()
    knowledge_sharing(leaf, torch.tensor([0])).backward()
    assert leaf.grad[1].abs().sum() > 0
    assert leaf.grad[[0, 2]].abs().sum() == 0
    silent = steps[[0, 2]].clone().requires_grad_()
    for target in (0, 1):  # all right, all wrong
        value = knowledge_sharing(silent, torch.tensor([target]))
        value.backward()
        assert value.item() == 0.0
        assert silent.grad.abs().sum() == 0


def test_error_alignment_by_hand():
    teacher = torch.tensor([[3.0, 1.0, 0.0]])
    student = torch.tensor([[[2.0, 1.0, 0.5]], [[1.0, 4.0, 0.0]]])  # right, then wrong: answers 1
    y = torch.tensor([0])
    right = kl_divergence(teacher, student[0], 3.0)
    wrong = kl_divergence(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]]), 3.0)
    assert error_aligned_distillation(teacher, student, y).item() == pytest.approx(9 * (right + wrong).item() / 2)
    student[1, 0, 2] = 2.0
    wrong = kl_divergence(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.0, 2.0]]), 3.0)
    assert error_aligned_distillation(teacher, student, y).item() == pytest.approx(9 * (right + wrong).item() / 2)


def test_error_alignment_is_zero_for_equal_networks_and_spares_the_teacher(z):
    y = torch.zeros(B, dtype=torch.long)
    assert (z.argmax(-1) != y).any()
    assert error_aligned_distillation(z, z, y).item() == pytest.approx(0.0, abs=1e-12)
    teacher, student = z[0].clone().requires_grad_(), z.clone().requires_grad_()
    error_aligned_distillation(teacher, student, y).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_selective_alignment_by_hand(z):
    def conf(v):
        p = v.softmax(-1)
        return 1 + (p * p.log()).sum() / math.log(K)

    expected = 0.0
    for b in range(B):
        for t in range(T):
            others = [j for j in range(T) if j != t]
            cos = [torch.cosine_similarity(z[t, b], z[j, b], dim=0) for j in others]
            weights = torch.stack([conf(z[j, b]) * c for j, c in zip(others, cos, strict=True)]).softmax(0)
            mixture = sum(w * z[j, b] for w, j in zip(weights, others, strict=True))
            expected += 9 * kl_divergence(mixture, z[t, b], 3.0).item() / (T * B)
    assert selective_alignment(z).item() == pytest.approx(expected)
    assert selective_alignment(z[:1].expand(T, B, K)).item() == pytest.approx(0.0, abs=1e-12)
    assert selective_alignment(z[:1]).item() == 0.0
