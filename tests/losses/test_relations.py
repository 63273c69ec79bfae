import math

import pytest
import torch

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.relations import attention_transfer, normalise, similarity_preserving


def test_normalise_leaves_silence_silent():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    unit = normalise(x)
    assert torch.allclose(unit, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    unit.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad[1].any()


def test_attention_transfer_by_hand():
    student, teacher = torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 1, 2)
    student[0, :, 0, 0] = torch.tensor([1.0, -2.0])  # attention (5, 0) -> (1, 0)
    teacher[0, 0, 0] = torch.tensor([math.sqrt(3), 2.0])  # attention (3, 4) -> (0.6, 0.8)
    assert attention_transfer(student, teacher).item() == pytest.approx((0.16 + 0.64) / 2, rel=1e-6)


def test_attention_ignores_scale_and_channels():
    x, teacher = torch.randn(3, 4, 5, 5), torch.randn(3, 7, 5, 5)
    value = attention_transfer(x, teacher).item()
    assert value > 0
    assert attention_transfer(3 * x[:, [2, 0, 3, 1]], -teacher).item() == pytest.approx(value, rel=1e-5)
    assert attention_transfer(x, 2 * x).item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(ConfigError, match="compares positions"):
        attention_transfer(torch.randn(3, 4, 1, 1), teacher)


def test_similarity_preserving_by_hand():
    student = torch.eye(2)  # all samples different: rows (1, 0) and (0, 1)
    teacher = torch.ones(2, 3)  # all alike: rows (1, 1) / sqrt 2
    one = 1 / math.sqrt(2)
    expected = (2 * (1 - one) ** 2 + 2 * one**2) / 4
    assert similarity_preserving(student, teacher).item() == pytest.approx(expected, rel=1e-6)
    steps = torch.stack([student, torch.ones(2, 2)])
    assert similarity_preserving(steps, teacher.expand(2, 2, 3)).item() == pytest.approx(expected / 2, rel=1e-6)


def test_similarity_ignores_scale_and_rotation():
    x = torch.randn(6, 4, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    assert similarity_preserving(x, 5 * x @ rotation).item() == pytest.approx(0, abs=1e-12)
    assert similarity_preserving(x, torch.randn(6, 9, dtype=torch.float64)).item() > 0


@pytest.mark.parametrize("loss", [attention_transfer, similarity_preserving])
def test_the_teacher_learns_nothing_and_silence_is_finite(loss):
    student, teacher = torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2)
    if loss is similarity_preserving:
        student, teacher = student.flatten(1), teacher.flatten(1)
    student[1] = 0
    student.requires_grad_()
    teacher.requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert torch.isfinite(student.grad).all()
    assert student.grad.any()
