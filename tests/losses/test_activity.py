"""Penalties on spikes and logits, and the forms of response distillation, by hand."""

import math

import pytest
import torch

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.activity import activity_penalty, logit_penalty, response_distillation
from sdsnn_lightning.losses.logits import distillation_loss


def test_rates_add_up_by_layers():
    small, large = torch.tensor([1.0, 0.0]), torch.zeros(2, 3, 4)
    large[0, 0] = 1.0  # 4 of 24
    assert activity_penalty([small, large]).item() == pytest.approx(1 / 2 + 1 / 6)
    assert activity_penalty([small, large], "l2").item() == pytest.approx(1 / 4 + 1 / 36)
    assert activity_penalty([large * 0]).item() == 0.0
    with pytest.raises(ConfigError, match="no layer of spiking neurons"):
        activity_penalty([])


def test_logit_penalty_by_hand_moves_with_a_shift():
    z = torch.tensor([[3.0, -1.0], [0.0, 2.0]])
    assert logit_penalty(z).item() == pytest.approx((9 + 1 + 4) / 4)
    assert logit_penalty(z + 1).item() == pytest.approx((16 + 0 + 1 + 9) / 4)


def test_forms_of_response_by_hand():
    teacher, student = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert response_distillation(teacher, student, "mse").item() == pytest.approx((4 + 1) / 2)
    assert response_distillation(teacher, student, "soft", 3.0) == distillation_loss(teacher, student, 3.0)
    p, q = 1 / (1 + math.exp(-2 / 3)), 1 / (1 + math.exp(1 / 3))
    assert response_distillation(teacher, student, "soft_mse", 3.0).item() == pytest.approx(9 * 2 * (p - q) ** 2)


@pytest.mark.parametrize("form", ["mse", "soft", "soft_mse"])
def test_equal_answers_cost_nothing_and_the_teacher_learns_nothing(form):
    draw = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(4, 3, generator=draw).requires_grad_() for _ in range(2))
    assert response_distillation(teacher, teacher, form).item() == pytest.approx(0.0, abs=1e-7)
    value = response_distillation(teacher, student, form)
    value.backward()
    assert teacher.grad is None
    shifted = response_distillation(teacher, student + 2.0, form).item()
    assert (shifted == pytest.approx(value.item(), rel=1e-5)) == (form != "mse")
    with pytest.raises(ConfigError, match="differ"):
        response_distillation(teacher, student[:2], form)
