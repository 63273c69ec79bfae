import math

import pytest
import torch

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.logit_variants import (
    decoupled_distillation,
    focal_weight,
    relational_distillation,
    weighted_soft_labels,
)
from sdsnn_lightning.losses.logits import kl_divergence

LOSSES = {
    "wsld": weighted_soft_labels,
    "dkd": decoupled_distillation,
    "dist": lambda t, s, y, temperature=2.0: relational_distillation(t, s, temperature=temperature),
}


def draw(batch=5, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    teacher, student = (torch.randn(batch, classes, generator=generator) for _ in range(2))
    return teacher, student, torch.randint(classes, (batch,), generator=generator)


def test_weighted_soft_labels_by_hand():
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, 0.0]])
    weight = 1 - math.exp(-math.log(2) / (math.log(4 / 3) + 1e-7))
    assert focal_weight(teacher, student, torch.tensor([0])).item() == pytest.approx(weight, rel=1e-6)
    # A student that knows nothing has H = ln 2 at every temperature.
    value = weighted_soft_labels(teacher, student, torch.tensor([0]), 2.0)
    assert value.item() == pytest.approx(4 * weight * math.log(2), rel=1e-6)
    soft = weighted_soft_labels(teacher, student, torch.tensor([[1.0, 0.0]]), 2.0)
    assert soft.item() == pytest.approx(value.item(), rel=1e-6)


def test_focal_weight_goes_from_a_sure_student_to_a_sure_teacher():
    unsure, sure, target = torch.zeros(1, 3), torch.tensor([[40.0, 0.0, 0.0]]), torch.tensor([0])
    assert focal_weight(unsure, sure, target).item() == pytest.approx(0, abs=1e-6)
    assert focal_weight(sure, unsure, target).item() == pytest.approx(1, abs=1e-6)
    assert focal_weight(sure, sure, target).isfinite().all()


def test_decoupled_distillation_by_hand():
    teacher, student = torch.log(torch.tensor([[0.5, 0.3, 0.2]])), torch.log(torch.tensor([[0.25, 0.25, 0.5]]))
    tckd = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    nckd = 0.6 * math.log(0.6 * 3) + 0.4 * math.log(0.4 * 3 / 2)
    value = decoupled_distillation(teacher, student, torch.tensor([0]), alpha=2.0, beta=5.0, temperature=1.0)
    assert value.item() == pytest.approx(2 * tckd + 5 * nckd, rel=1e-5)


def test_decoupled_parts_make_up_hintons_loss():
    teacher, student, target = draw(1)
    part = 1 - (teacher / 4).softmax(-1)[0, target].item()
    assert decoupled_distillation(teacher, student, target, 1.0, part).item() == pytest.approx(
        16 * kl_divergence(teacher, student, 4.0).item(), rel=1e-4
    )


def test_dist_by_hand():
    teacher, student = draw(3, 4)[:2]
    p, q = (teacher / 4).softmax(-1), (student / 4).softmax(-1)
    inter = sum(1 - torch.corrcoef(torch.stack([p[b], q[b]]))[0, 1].item() for b in range(3)) / 3
    intra = sum(1 - torch.corrcoef(torch.stack([p[:, k], q[:, k]]))[0, 1].item() for k in range(4)) / 4
    value = relational_distillation(teacher, student, beta=2.0, gamma=0.5).item()
    assert value == pytest.approx(16 * (2 * inter + 0.5 * intra), rel=1e-4)


def test_dist_leaves_out_what_has_no_spread():
    teacher, student, _ = draw(1)
    alone = relational_distillation(teacher, student, gamma=100.0)
    assert alone.item() == pytest.approx(relational_distillation(teacher, student, gamma=0.0).item(), rel=1e-6)
    flat = torch.zeros(1, 4, requires_grad=True)
    relational_distillation(teacher, flat).backward()
    assert torch.isfinite(flat.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_equal_networks_are_the_minimum_and_teachers_learn_nothing(name):
    teacher, student, target = draw()
    same = teacher.clone().requires_grad_()
    value = LOSSES[name](teacher, same, target, temperature=2.0)
    value.backward()
    assert same.grad.abs().max() < 1e-5
    if name != "wsld":  # a cross-entropy: its least value is the teacher's entropy
        assert value.item() == pytest.approx(0, abs=1e-5)
    teacher.requires_grad_()
    student.requires_grad_()
    loss = LOSSES[name](teacher, student, target, temperature=2.0)
    loss.backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0
    assert name == "wsld" or loss.item() > value.item()  # its weights depend on the student, too


@pytest.mark.parametrize("name", LOSSES)
def test_adding_a_constant_to_the_logits_changes_nothing(name):
    teacher, student, target = draw()
    value = LOSSES[name](teacher, student, target).item()
    assert LOSSES[name](teacher - 3, student + 5, target).item() == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_bad_input_is_refused(name):
    teacher, student, target = draw()
    with pytest.raises(ConfigError, match=r"teacher logits \(5, 3\) and student logits \(5, 4\)"):
        LOSSES[name](teacher[:, :3], student, target)
    with pytest.raises(ConfigError, match="temperature: 0"):
        LOSSES[name](teacher, student, target, temperature=0)


def test_half_precision_is_computed_in_full():
    teacher, student, target = draw()
    full = weighted_soft_labels(teacher.half().float(), student.half().float(), target)
    assert torch.equal(weighted_soft_labels(teacher.half(), student.half(), target), full)
