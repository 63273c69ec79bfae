"""Per-step losses against hand-computed values, and what must and must not change them."""

import math

import pytest
import torch
from torch.nn import functional as F

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.logits import distillation_loss, kl_divergence
from sdsnn_lightning.losses.temporal import (
    ensemble_logits,
    head_tail_divergence,
    mean_entropy,
    noise_smoothed_distillation,
    self_ensemble_distillation,
    stepwise_cross_entropy,
    stepwise_distillation,
    tet_loss,
)

T, B, K = 3, 4, 5


@pytest.fixture
def draw():
    return torch.Generator().manual_seed(0)


def logits(draw, *shape):
    return 2 * torch.randn(*shape, generator=draw, dtype=torch.float64)


def softmax(values, tau=1.0):
    raised = [math.exp(v / tau) for v in values]
    return [r / sum(raised) for r in raised]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_stepwise_cross_entropy_by_hand_and_above_that_of_the_mean(draw):
    z, y = logits(draw, T, B, K), torch.tensor([0, 1, 2, 4])
    by_hand = sum(-math.log(softmax(z[t, b].tolist())[y[b]]) for t in range(T) for b in range(B)) / (T * B)
    assert stepwise_cross_entropy(z, y).item() == pytest.approx(by_hand)
    assert stepwise_cross_entropy(z, y) > F.cross_entropy(z.mean(0), y)
    assert stepwise_cross_entropy(z + 3.0, y).item() == pytest.approx(by_hand)


def test_tet_by_hand():
    z, y = torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]), torch.tensor([1])
    task = (-math.log(softmax([1.0, 3.0])[1]) + math.log(2)) / 2
    pull = (0 + 4 + 1 + 1) / 4
    assert tet_loss(z, y, 0.05, 1.0).item() == pytest.approx(0.95 * task + 0.05 * pull, rel=1e-6)
    assert tet_loss(z, y, 0.0).item() == pytest.approx(task, rel=1e-6)
    assert tet_loss(z + 1.0, y, 0.05) != pytest.approx(tet_loss(z, y, 0.05).item())  # the level fixes the shift


def test_stepwise_distillation_by_hand(draw):
    teacher, student = logits(draw, B, K), logits(draw, T, B, K)
    by_hand = 9 * sum(
        kl(softmax(teacher[b].tolist(), 3), softmax(student[t, b].tolist(), 3)) for t in range(T) for b in range(B)
    )
    assert stepwise_distillation(teacher, student, 3.0).item() == pytest.approx(by_hand / (T * B))
    timed = teacher.expand(T, B, K)
    assert stepwise_distillation(timed, student, 3.0).item() == pytest.approx(by_hand / (T * B))


def test_stepwise_divergence_is_never_below_that_of_the_mean(draw):
    for _ in range(5):
        teacher, student = logits(draw, B, K), logits(draw, T, B, K)
        assert stepwise_distillation(teacher, student, 2.0) >= distillation_loss(teacher, student.mean(0), 2.0)
    assert stepwise_distillation(teacher, teacher.expand(T, B, K), 2.0).item() == pytest.approx(0.0, abs=1e-12)


def test_the_teacher_gets_no_gradient_and_a_shift_changes_nothing(draw):
    teacher, student = logits(draw, B, K).requires_grad_(), logits(draw, T, B, K).requires_grad_()
    losses = (stepwise_distillation, lambda t, s, tau: head_tail_divergence(t.expand(T, B, K), s, tau))
    for loss in losses:
        value = loss(teacher, student, 2.0)
        value.backward()
        assert teacher.grad is None
        assert student.grad.abs().sum() > 0
        assert loss(teacher + 5.0, student - 2.0, 2.0).item() == pytest.approx(value.item())
        student.grad = None
    noise_smoothed_distillation(teacher, student[0]).backward()
    assert teacher.grad is None


def test_ensemble_of_all_and_of_correct_steps():
    z = torch.tensor([[[2.0, 0.0]], [[0.0, 3.0]], [[4.0, 1.0]]])  # answers 0, 1, 0
    assert ensemble_logits(z, torch.tensor([0]), "all")[0].tolist() == pytest.approx([2.0, 4 / 3])
    assert ensemble_logits(z, torch.tensor([0]), "correct").tolist() == [[3.0, 0.5]]
    assert ensemble_logits(z, torch.tensor([1]), "correct").tolist() == [[0.0, 3.0]]
    never = z.flip(-1)[:1]
    assert ensemble_logits(never, torch.tensor([0]), "correct").tolist() == [[0.0, 0.0]]  # the uniform distribution


def test_self_ensemble_is_zero_for_equal_steps_and_detached(draw):
    step = logits(draw, B, K)
    y = step.argmax(-1)
    for ensemble in ("all", "correct"):
        assert self_ensemble_distillation(step.expand(T, B, K), y, 3.0, ensemble).item() == pytest.approx(0, abs=1e-12)
    z = logits(draw, T, B, K).requires_grad_()
    self_ensemble_distillation(z, y, 3.0).backward()
    fixed = z.detach().mean(0)
    again = z.detach().clone().requires_grad_()
    (9 * kl_divergence(fixed.expand(T, B, K), again, 3.0)).backward()
    assert torch.allclose(z.grad, again.grad)


def test_entropy():
    assert mean_entropy(torch.zeros(2, 3, 8)).item() == pytest.approx(math.log(8))
    p = softmax([1.0, 0.0], 2.0)
    assert mean_entropy(torch.tensor([[1.0, 0.0]]), 2.0).item() == pytest.approx(-sum(x * math.log(x) for x in p))
    with pytest.raises(ConfigError, match="temperature"):
        mean_entropy(torch.zeros(1, 2), 0.0)


def test_head_tail_by_hand():
    p, q = [0.5, 0.3, 0.15, 0.05], [0.25, 0.45, 0.1, 0.2]
    teacher, student = (torch.tensor([values], dtype=torch.float64).log() for values in (p, q))
    # head at 0.6: classes 0 and 1 (0.5 is not enough), gaps 0.25 + 0.15; tail 0.05 + 0.15
    expected = 0.4 / 0.6 * kl(p, q) + 0.2 / 0.6 * kl(q, p)
    assert head_tail_divergence(teacher, student, 1.0, 0.6).item() == pytest.approx(expected)
    # head at 0.5: class 0 alone reaches it
    expected = 0.25 / 0.6 * kl(p, q) + 0.35 / 0.6 * kl(q, p)
    assert head_tail_divergence(teacher, student, 1.0, 0.5 - 1e-9).item() == pytest.approx(expected)
    assert head_tail_divergence(teacher, teacher, 2.0, 0.5).item() == 0.0
    with pytest.raises(ConfigError, match="head"):
        head_tail_divergence(teacher, student, 1.0, 1.0)


def test_noise_smoothing_mixes_logits_or_probabilities(draw):
    teacher, student = logits(draw, B, K), logits(draw, B, K)
    for mix in ("logits", "probabilities"):
        none = noise_smoothed_distillation(teacher, student, 2.0, 0.0, mix)
        assert none.item() == pytest.approx(distillation_loss(teacher, student, 2.0).item())
    seeded = [torch.Generator().manual_seed(5) for _ in range(3)]
    e = torch.randn(B, K, generator=seeded[0], dtype=torch.float64)
    e = student.mean(-1, keepdim=True) + student.std(-1, keepdim=True, unbiased=False) * e
    paper = noise_smoothed_distillation(teacher, student, 2.0, 0.1, "logits", seeded[1])
    assert paper.item() == pytest.approx(distillation_loss(teacher, student + 0.1 * e, 2.0).item())
    p, q = (teacher / 2).softmax(-1), 0.9 * (student / 2).softmax(-1) + 0.1 * (e / 2).softmax(-1)
    code = noise_smoothed_distillation(teacher, student, 2.0, 0.1, "probabilities", seeded[2])
    assert code.item() == pytest.approx(4 * (p * (p / q).log()).sum(-1).mean().item())


def test_half_precision_is_computed_in_float32(draw):
    teacher, student = torch.randn(B, K, generator=draw).half(), torch.randn(T, B, K, generator=draw).half()
    assert stepwise_distillation(teacher, student).dtype == torch.float32
    assert tet_loss(student, torch.zeros(B, dtype=torch.long)).dtype == torch.float32


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="differ"):
        stepwise_distillation(torch.zeros(2, B, K), torch.zeros(T, B, K))
