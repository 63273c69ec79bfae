"""Class-activation maps and their distillation, by hand."""

import math

import pytest
import torch

from sdsnn_lightning.losses.activation_maps import class_activation, map_distillation, unit_range


def test_class_activation_by_hand():
    feature = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # [1, 2, 1, 2]
    head = torch.tensor([[1.0, 1.0], [2.0, -1.0]])
    assert class_activation(feature, head, torch.tensor([0])).tolist() == [[[4.0, 2.0]]]
    assert class_activation(feature, head, torch.tensor([1])).tolist() == [[[0.0, 4.0]]]  # 2 - 3 < 0


def test_unit_range_of_sample_and_batch():
    maps = torch.tensor([[0.0, 4.0], [2.0, 3.0], [1.0, 1.0]])
    assert unit_range(maps).tolist() == [[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]
    assert unit_range(maps, "batch").tolist() == [[0.0, 1.0], [0.5, 0.75], [0.25, 0.25]]


def test_map_distillation_by_hand():
    teacher = torch.tensor([[[0.0, 8.0]]])  # one row of two positions: 0 and 1
    student = torch.tensor([[[[3.0, 0.0]], [[1.0, 1.0]]]])  # summed: 4 and 1, so 1 and 0
    p = 1 / (1 + math.exp(-0.5))
    expected = 4 * (p * math.log(p / (1 - p)) + (1 - p) * math.log((1 - p) / p))
    assert map_distillation(teacher, student, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_maps_that_agree_up_to_scale_cost_nothing():
    teacher = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    student = (teacher.detach() * 5 + 2).unsqueeze(1).requires_grad_()
    assert map_distillation(teacher, student).item() == pytest.approx(0.0, abs=1e-6)
    coarse = torch.rand(3, 2, 2, 2).requires_grad_()
    map_distillation(teacher, coarse).backward()  # 4x4 averaged to 2x2
    assert coarse.grad.abs().sum() > 0
    assert teacher.grad is None
    silent = torch.zeros(3, 2, 4, 4, requires_grad=True)
    map_distillation(teacher, silent).backward()
    assert silent.grad.isfinite().all()
