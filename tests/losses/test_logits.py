import math

import pytest
import torch

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.logits import distillation_loss, kl_divergence


def test_kl_by_hand():
    teacher = torch.tensor([[math.log(3.0), 0.0]])  # p = (3/4, 1/4)
    student = torch.tensor([[0.0, 0.0]])  # q = (1/2, 1/2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_divergence(teacher, student).item() == pytest.approx(expected, abs=1e-6)
    # At temperature 2 the teacher's odds are sqrt(3).
    p = math.sqrt(3) / (1 + math.sqrt(3))
    softened = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    assert kl_divergence(teacher, student, 2.0).item() == pytest.approx(softened, abs=1e-6)
    assert distillation_loss(teacher, student, 2.0).item() == pytest.approx(4 * softened, abs=1e-6)


def test_direction_and_reduction():
    teacher, student = torch.tensor([[5.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    forward = kl_divergence(teacher, student, reduction="none")
    assert forward.shape == (2,)
    assert forward[1] == 0
    assert forward[0] < kl_divergence(student, teacher, reduction="none")[0]  # a flat teacher punishes a sure student
    assert kl_divergence(teacher, student).item() == pytest.approx(forward[0].item() / 2)


def test_matches_torch_and_its_gradient():
    torch.manual_seed(0)
    teacher, student = torch.randn(3, 4, 7), torch.randn(3, 4, 7, requires_grad=True)
    ours = kl_divergence(teacher, student)
    theirs = torch.nn.functional.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="sum") / 12
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(ours, student)
    assert torch.allclose(gradient, (student.softmax(-1) - teacher.softmax(-1)) / 12, atol=1e-7)


def test_identical_logits_and_no_gradient_to_the_teacher():
    logits = torch.randn(5, 7)
    assert kl_divergence(logits, logits.clone()).abs() < 1e-7
    teacher, student = logits.clone().requires_grad_(), torch.randn(5, 7, requires_grad=True)
    distillation_loss(teacher, student).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_full_precision_inside_autocast():
    torch.manual_seed(0)
    teacher, student = torch.randn(64, 7), torch.randn(64, 7)
    with torch.autocast("cpu", torch.bfloat16):
        inside = distillation_loss(teacher, student)
        half = distillation_loss(teacher.bfloat16(), student.bfloat16())
    assert inside.dtype == half.dtype == torch.float32
    assert torch.equal(inside, distillation_loss(teacher, student))
    assert torch.equal(half, distillation_loss(teacher.bfloat16().float(), student.bfloat16().float()))
    assert distillation_loss(teacher.double(), student.double()).dtype == torch.float64


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match=r"\(4, 2, 7\) and student logits \(2, 7\)"):
        kl_divergence(torch.zeros(4, 2, 7), torch.zeros(2, 7))
    with pytest.raises(ConfigError, match="temperature"):
        distillation_loss(torch.zeros(2, 7), torch.zeros(2, 7), 0.0)
