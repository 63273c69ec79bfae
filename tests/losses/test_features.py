import pytest
import torch

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.features import (
    Pair,
    align_time,
    as_maps,
    mean_squared_error,
    rescale_range,
    same_size,
    squared_error,
)


def test_every_feature_is_maps_over_time():
    for shape, maps in (((5, 2, 3), (5, 2, 3, 1, 1)), ((5, 2, 3, 7), (5, 2, 3, 1, 7)), ((5, 2, 3, 4, 6),) * 2):
        assert as_maps(torch.zeros(shape), timed=True).shape == maps
        assert as_maps(torch.zeros(shape[1:]), timed=False).shape == (1, *maps[1:])
    with pytest.raises(ConfigError, match=r"shape \(5, 2\) is no vector"):
        as_maps(torch.zeros(5, 2), timed=True)
    with pytest.raises(ConfigError, match=r"tap one of \[B, D\]"):
        as_maps(torch.zeros(5, 2, 1, 1, 1), timed=False)


def test_time_is_compared_by_step_where_equal_and_averaged_where_it_differs():
    student, teacher = torch.randn(4, 2, 3, 5, 5), torch.randn(16, 2, 3, 5, 5)
    pair = align_time(student, teacher)
    assert torch.allclose(pair.student, student.mean(0, keepdim=True))
    assert torch.allclose(pair.teacher, teacher.mean(0, keepdim=True))
    pair = align_time(student, teacher[:4])
    assert pair.student is student
    assert torch.equal(pair.teacher, teacher[:4])
    assert pair.folded()[0].shape == (8, 3, 5, 5)
    assert len(align_time(student, teacher[:4], "mean").student) == 1
    # One image: averaged against, or repeated at every step if steps are asked for.
    assert len(align_time(student, teacher[:1]).student) == 1
    assert torch.equal(align_time(student, teacher[:1], "step").teacher[3], teacher[0])
    with pytest.raises(ConfigError, match="has 4 and the teacher's 16"):
        align_time(student, teacher, "step")
    with pytest.raises(ConfigError, match="2 student samples and 3 teacher"):
        align_time(student, torch.zeros(4, 3, 1, 1, 1))


def test_time_steps_of_vectors_become_positions_that_regroup_like_frames():
    student, teacher = torch.randn(4, 2, 3, 1, 1), torch.randn(16, 2, 5, 6, 6)
    pair = align_time(student, teacher, "positions")
    assert pair.student.shape == (1, 2, 3, 1, 4)
    assert torch.equal(pair.student[0, 1, :, 0, 2], student[2, 1, :, 0, 0])
    own, other = same_size(*pair.folded())
    assert own.shape == (2, 3, 1, 4)
    regrouped = teacher.mean((-2, -1)).unflatten(0, (4, 4)).mean(1)  # [4, B, C]
    assert torch.allclose(other[:, :, 0], regrouped.permute(1, 2, 0), atol=1e-6)


def test_padding_counts_nowhere():
    real = torch.tensor([[1, 1], [1, 0], [1, 0]]).bool()  # [T, B]
    student = torch.randn(3, 2, 4, 1, 1)
    padded = torch.where(real[:, :, None, None, None], student, 1e3)
    for how, other in (("mean", 5), ("step", 3)):
        teacher = torch.randn(other, 2, 4, 1, 1)
        a, b = (align_time(x, teacher, how, real).folded()[0] for x in (student, padded))
        assert torch.equal(a, b)
        assert len(a) == (2 if how == "mean" else 4)
    assert torch.equal(align_time(padded, teacher, "mean", real).student[0, 1], student[0, 1])
    row = align_time(padded, teacher, "positions", real).student
    assert not row[0, 1, :, 0, 1:].any()


def test_the_finer_map_is_averaged_to_the_coarser():
    fine = torch.arange(16.0).view(1, 1, 4, 4)
    own, other = same_size(fine, torch.zeros(1, 3, 2, 2))
    assert own.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert other.shape == (1, 3, 2, 2)
    assert same_size(torch.zeros(1, 1, 1, 1), fine)[1].item() == 7.5
    assert [tuple(x.shape[-2:]) for x in same_size(torch.zeros(1, 1, 2, 6), torch.zeros(1, 1, 3, 5))] == [(2, 5)] * 2
    with pytest.raises(ConfigError, match="a sequence and a map"):
        same_size(torch.zeros(1, 1, 1, 6), torch.zeros(1, 1, 3, 5))


def test_distances_have_the_reductions_they_say():
    a, b = torch.zeros(2, 3, 2, 2), torch.full((2, 3, 2, 2), 0.5)
    assert squared_error(a, b).item() == 12 * 0.25
    assert squared_error(a.repeat(4, 1, 1, 1), b.repeat(4, 1, 1, 1)).item() == 12 * 0.25
    assert mean_squared_error(a, b).item() == 0.25
    assert squared_error(a[:0], b[:0]).item() == mean_squared_error(a[:0], b[:0]).item() == 0
    half = torch.full((1, 40000), 3.0, dtype=torch.float16)
    assert squared_error(half, -half).item() == pytest.approx(1.44e6)  # beyond float16


def test_the_teacher_is_scaled_to_the_students_range_without_gradient():
    student = torch.tensor([0.2, 0.5], requires_grad=True)
    scaled = rescale_range(torch.tensor([1.0, 4.0]), student)
    assert scaled.tolist() == [0.125, 0.5]
    assert not scaled.requires_grad
    for silent in (torch.zeros(2), torch.tensor([-1.0, 0.0])):
        assert rescale_range(torch.tensor([1.0, 4.0]), silent).tolist() == [1.0, 4.0]
        assert torch.equal(rescale_range(silent, student), silent)


def test_a_pair_folds_steps_into_samples():
    student = torch.arange(6.0).view(3, 2, 1, 1, 1)
    pair = Pair(student, student, torch.tensor([[1, 1], [0, 1], [1, 0]]).bool())
    assert pair.folded()[0].flatten().tolist() == [0, 1, 3, 4]
