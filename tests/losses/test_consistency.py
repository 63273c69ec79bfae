import math

import pytest
import torch

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.consistency import (
    change_consistency,
    confidence,
    hit_consistency,
    hit_probability,
    hits,
    relation_consistency,
    step_consistency,
)

LN3 = math.log(3.0)
# KL of (3/4, 1/4) from (1/2, 1/2), and the other way round.
KL_SURE = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
KL_FLAT = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)


def random(*shape):
    draw = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def test_hits():
    logits = torch.tensor([[[2.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    assert hits(logits, torch.tensor([0, 1])).tolist() == [[True, True], [False, True]]


def test_reading_a_counts_hits_only():
    teacher = torch.tensor([[LN3, 0.0], [LN3, 0.0], [0.0, LN3]])
    student = torch.zeros(3, 2)
    student[1] = 9.0  # equal logits again, so each sample costs KL_SURE
    target = torch.tensor([0, 1, 1])  # the second is a miss
    assert hit_consistency(teacher, student, target, 1.0).item() == pytest.approx(KL_SURE, rel=1e-5)
    student[1, 0] = 50.0  # what happens at a miss does not matter
    assert hit_consistency(teacher, student, target, 1.0).item() == pytest.approx(KL_SURE, rel=1e-5)
    student[2, 1] = LN3  # one of two hits is now matched
    assert hit_consistency(teacher, student, target, 1.0).item() == pytest.approx(KL_SURE / 2, rel=1e-5)


def test_reading_b_is_the_binary_divergence():
    # p_y: teacher 3/5, student 1/3; the other classes do not matter beyond their sum.
    teacher = torch.tensor([[LN3, 0.0, 0.0]])
    student = torch.tensor([[0.0, -5.0, math.log(2 - math.exp(-5.0))]])
    expected = 0.6 * math.log(0.6 / (1 / 3)) + 0.4 * math.log(0.4 / (2 / 3))
    assert hit_probability(teacher, student, torch.tensor([0]), 1.0).item() == pytest.approx(expected, rel=1e-5)
    # With two classes it is the whole divergence.
    teacher, student, target = random(6, 2), random(6, 2) * 2, torch.tensor([0, 1, 0, 1, 1, 0])
    whole = step_consistency(teacher[None], student[None], 3.0)
    assert hit_probability(teacher, student, target, 3.0).item() == pytest.approx(whole.item())


def test_reading_b_survives_a_certain_network():
    teacher = torch.tensor([[90.0, 0.0, 0.0]])
    student = torch.tensor([[-90.0, 90.0, 0.0]], requires_grad=True)
    loss = hit_probability(teacher, student, torch.tensor([0]), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(180.0, rel=1e-4)
    assert student.grad[0].tolist() == pytest.approx([-1.0, 1.0, 0.0], abs=1e-4)


def test_reading_c_averages_over_hit_steps():
    teacher = torch.tensor([[[LN3, 0.0]], [[LN3, 0.0]], [[0.0, LN3]]])  # step 3 misses
    student = torch.tensor([[[0.0, 0.0]], [[LN3, 0.0]], [[7.0, 0.0]]])
    assert hit_consistency(teacher, student, torch.tensor([0]), 1.0).item() == pytest.approx(KL_SURE / 2, rel=1e-5)


@pytest.mark.parametrize("shape", [(4, 7), (3, 4, 7)])
def test_no_hit_gives_zero_and_a_finite_gradient(shape):
    teacher = torch.zeros(shape)
    teacher[..., 1] = 5.0
    student = torch.randn(shape, requires_grad=True)
    loss = hit_consistency(teacher, student, torch.zeros(4, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert (student.grad == 0).all()


def test_step_consistency_by_hand():
    teacher = torch.tensor([[[LN3, 0.0]], [[0.0, 0.0]]])
    student = torch.tensor([[[0.0, 0.0]], [[LN3, 0.0]]])
    assert step_consistency(teacher, student, 1.0).item() == pytest.approx((KL_SURE + KL_FLAT) / 2, rel=1e-5)
    # p_y of the two steps: 3/4 and 1/2, so weights 3/5 and 2/5.
    weights = confidence(teacher, torch.tensor([0]))
    assert weights[:, 0].tolist() == pytest.approx([0.6, 0.4])
    weighted = step_consistency(teacher, student, 1.0, weights)
    assert weighted.item() == pytest.approx(0.6 * KL_SURE + 0.4 * KL_FLAT, rel=1e-5)


def test_confidence_of_a_hopeless_teacher_is_finite():
    weights = confidence(torch.tensor([[[0.0, 900.0]], [[0.0, 900.0]]]), torch.tensor([0]))
    assert weights[:, 0].tolist() == [0.5, 0.5]


def test_relation_by_hand():
    teacher = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # orthogonal steps
    student = torch.tensor([[[2.0, 0.0, 0.0]], [[3.0, 0.0, 0.0]]])  # parallel steps, another width
    assert relation_consistency(teacher, student).item() == pytest.approx(2 / 4)
    maps = torch.rand(2, 1, 3, 4, 4)
    assert relation_consistency(maps, 5 * maps).item() == pytest.approx(0, abs=1e-6)


def test_silent_steps_have_no_gradient():
    student = torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]], [[1.0, 0.0]]], requires_grad=True)
    loss = relation_consistency(random(3, 1, 4).float(), student)
    loss.backward()
    assert loss > 0
    assert (student.grad[0] == 0).all()
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0


def test_change_by_hand():
    teacher = torch.tensor([[[0.0, 0.0]], [[LN3, 0.0]], [[LN3, 0.0]]])  # changes (ln 3, 0), (0, 0)
    student = torch.tensor([[[4.0, 1.0]], [[4.0, 1.0]], [[4.0, 3.0]]])  # changes (0, 0), (0, 2)
    assert change_consistency(teacher, student).item() == pytest.approx((LN3**2 / 2 + 4 / 2) / 2, rel=1e-5)
    # KL of (1/2, 1/2) from softmax(0, 2).
    p = 1 / (1 + math.exp(2.0))
    second = 0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1 - p))
    by_kl = change_consistency(teacher, student, 1.0, distance="kl")
    assert by_kl.item() == pytest.approx((KL_SURE + second) / 2, rel=1e-5)
    weights = torch.tensor([[0.5], [0.375], [0.125]])  # the steps arrived at count 3 : 1
    weighted = change_consistency(teacher, student, weights=weights)
    assert weighted.item() == pytest.approx(0.75 * LN3**2 / 2 + 0.25 * 2, rel=1e-5)


def test_change_needs_two_steps():
    with pytest.raises(ConfigError, match="2 or more"):
        change_consistency(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3))
    with pytest.raises(ConfigError, match=r"\(3, 2, 3\)"):
        change_consistency(torch.zeros(3, 2, 3), torch.zeros(2, 2, 3))
    with pytest.raises(ConfigError, match="same clip"):
        relation_consistency(torch.zeros(3, 2, 3), torch.zeros(2, 2, 3))


TERMS = {
    "A": lambda t, s, y: hit_consistency(t.mean(0), s.mean(0), y),
    "B": lambda t, s, y: hit_probability(t.mean(0), s.mean(0), y),
    "C": lambda t, s, y: hit_consistency(t, s, y),
    "steps": lambda t, s, y: step_consistency(t, s, weights=confidence(t, y)),
    "relations": lambda t, s, y: relation_consistency(t, s),
    "changes": lambda t, s, y: change_consistency(t, s),
    "changes kl": lambda t, s, y: change_consistency(t, s, distance="kl", weights=confidence(t, y)),
}


@pytest.mark.parametrize("name", TERMS)
def test_zero_for_identical_logits_and_no_gradient_to_the_teacher(name):
    term = TERMS[name]
    teacher, student = random(4, 5, 7).requires_grad_(), random(7, 4, 5).permute(1, 2, 0).clone().requires_grad_()
    target = teacher.mean(0).argmax(-1)
    assert term(teacher, teacher.detach().clone(), target).abs() < 1e-12
    loss = term(teacher, student, target)
    loss.backward()
    assert loss > 0.01
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", TERMS)
def test_gradients_are_right(name):
    teacher, target = random(3, 2, 4), torch.tensor([1, 2])
    teacher[:, [0, 1], target] += 3.0  # hits, so that masked terms are not empty
    student = random(4, 3, 2).permute(1, 2, 0).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: TERMS[name](teacher, s, target), (student,))


@pytest.mark.parametrize("name", TERMS)
def test_autocast_changes_nothing(name):
    teacher, student, target = random(4, 5, 7).float(), random(4, 5, 7).float() * 2, torch.arange(5)
    plain = TERMS[name](teacher, student, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(TERMS[name](teacher, student, target), plain)
