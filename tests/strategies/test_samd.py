"""Activation maps and spectra as strategies: classifiers are found, features fit, teachers stay as they are."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.activation_maps import class_activation, map_distillation
from sdsnn_lightning.losses.spectral import time_spectrum
from sdsnn_lightning.strategies import ActivationMapDistillation, SpectralDistillation
from sdsnn_lightning.types import Batch, Output, Step

T, B, K = 4, 3, 5
STUDENT = {"early": (6, 8, 8), "late": (4, 4, 4)}
TEACHER = {"early": (5, 8, 8), "late": (7, 2, 2)}


class Teacher(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Linear(7, 7)
        self.fc = nn.Linear(7, K)

    def readout(self, logits):
        return logits.mean(0) if logits.ndim == 3 else logits


def output(shapes, steps, seed, grad=False):
    draw = torch.Generator().manual_seed(seed)
    leading = (B,) if steps is None else (steps, B)
    features = {name: torch.rand(*leading, *s, generator=draw).requires_grad_(grad) for name, s in shapes.items()}
    return Output(torch.randn(*leading, K, generator=draw).requires_grad_(grad), features)


def step(student, teacher, view=None):
    target = torch.arange(B)
    return Step(Batch(view or {}, {}, target, {}), student, teacher, target, 0.5)


def built(strategy, student, teacher, readout=None):
    def one(out):
        lead = (slice(None),) * (out.logits.ndim - 2) + (slice(0, 1),)
        return Output(out.logits[lead].detach(), {name: x[lead].detach() for name, x in out.features.items()})

    distiller = SimpleNamespace(
        student=Teacher(), teacher=Teacher(), num_classes=K, example_outputs=lambda: (one(student), one(teacher))
    )
    if readout is not None:
        distiller.teacher.readout = readout
    return strategy.build(distiller)


@pytest.mark.parametrize("steps", [T, 16, 1, None], ids=["equal", "finer", "one_image", "without_time"])
@pytest.mark.parametrize("method", [ActivationMapDistillation, SpectralDistillation])
def test_any_teacher_of_maps_teaches(method, steps):
    student, teacher = output(STUDENT, T, 0, grad=True), output(TEACHER, steps, 1, grad=True)
    strategy = method()
    adapter = built(strategy, student, teacher)
    assert strategy.pairs == [("late", "late")]
    strategy.loss(step(student, teacher), adapter).backward()
    assert student.features["late"].grad.abs().sum() > 0
    assert all(x.grad is None for x in (teacher.logits, *teacher.features.values()))
    assert all(p.grad is not None for p in adapter.parameters())


def test_samd_by_hand():
    student, teacher = output(STUDENT, T, 0), output(TEACHER, 2, 1)
    strategy = ActivationMapDistillation(temperature=3.0, normalise="batch")
    adapter = built(strategy, student, teacher)
    assert strategy.head_name == "fc"
    assert not list(adapter.parameters())
    head = Teacher().fc.weight
    seen = class_activation(teacher.features["late"].mean(0), head, teacher.logits.mean(0).argmax(-1))
    expected = map_distillation(seen, student.features["late"].mean(0), 3.0, "batch")
    assert strategy.loss(step(student, teacher), adapter).item() == pytest.approx(expected.item())


def test_the_teachers_answer_is_that_of_its_own_readout():
    student, teacher = output(STUDENT, T, 0), output(TEACHER, 2, 1)
    logits = torch.zeros(2, B, K)
    logits[0, :, 1], logits[1, :, 2] = 3.0, 2.0  # the mean says class 1, the last step class 2
    teacher = Output(logits, teacher.features)
    strategy = ActivationMapDistillation()
    adapter = built(strategy, student, teacher, readout=lambda z: z[-1])
    seen = class_activation(teacher.features["late"].mean(0), Teacher().fc.weight, torch.full((B,), 2))
    expected = map_distillation(seen, student.features["late"].mean(0), 2.0)
    assert strategy.loss(step(student, teacher), adapter).item() == pytest.approx(expected.item())


def test_time_is_the_map_of_vectors():
    student, teacher = output({"layer": (6,)}, 4, 0, grad=True), output({"fused": (7,)}, 8, 1)
    strategy = ActivationMapDistillation()
    adapter = built(strategy, student, teacher)
    value = strategy.loss(step(student, teacher), adapter)
    answers = teacher.logits.mean(0).argmax(-1)
    seen = torch.einsum("tbd,bd->bt", teacher.features["fused"], Teacher().fc.weight[answers]).relu()
    rows = seen.unflatten(1, (4, 2)).mean(2)[:, None]  # 8 steps averaged to the student's 4
    expected = map_distillation(rows, student.features["layer"].permute(1, 2, 0)[:, :, None], 2.0)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(ConfigError, match="a map of one position says nothing"):
        built(ActivationMapDistillation(), student, output({"fused": (7,)}, None, 1))


def test_a_missing_classifier_is_refused():
    student, teacher = output(STUDENT, T, 0), output(TEACHER, T, 1)
    with pytest.raises(ConfigError, match=r"from 5 channels to 5 classes; it has hidden \(7 to 7\), fc \(7 to 5\)"):
        built(ActivationMapDistillation(taps="early"), student, teacher)
    with pytest.raises(ConfigError, match="no such linear layer from 7 channels"):
        built(ActivationMapDistillation(head="hidden"), student, teacher)
    with pytest.raises(ConfigError, match="Teacher has no feature 'top'; it has early, late"):
        built(ActivationMapDistillation(taps="top"), student, teacher)


def test_spectra_by_hand():
    shapes = {"x": (3,)}
    student, teacher = output(shapes, 4, 0), output(shapes, 8, 1)
    for transform, bands, count in (("dct", None, 4), ("dct", 2, 2), ("fft", None, 2)):
        strategy = SpectralDistillation(transform=transform, bands=bands)
        adapter = built(strategy, student, teacher)
        assert not list(adapter.parameters())  # equal channels
        own, other = (time_spectrum(out.features["x"], transform, count) for out in (student, teacher))
        value = strategy.loss(step(student, teacher), adapter)
        assert value.item() == pytest.approx((own - other).square().mean().item(), rel=1e-5)
        assert strategy.loss(step(student, student), adapter).item() == 0.0


def test_a_teacher_without_time_has_a_mean_alone():
    student, teacher = output({"x": (3,)}, 4, 0), output({"x": (3,)}, None, 1)
    strategy = SpectralDistillation()
    value = strategy.loss(step(student, teacher), built(strategy, student, teacher))
    expected = (student.features["x"].mean(0) - teacher.features["x"]).square().mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_padded_steps_are_silent():
    student, teacher = output({"x": (3,)}, 4, 0), output({"x": (3,)}, 4, 1)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])  # [B, T]
    noisy = Output(student.logits, {"x": student.features["x"] + 9.0 * (1 - mask.mT[..., None])})
    strategy = SpectralDistillation()
    adapter = built(strategy, student, teacher)
    values = [strategy.loss(step(out, teacher, {"mask": mask}), adapter).item() for out in (student, noisy)]
    assert values[0] == pytest.approx(values[1])
    with pytest.raises(ConfigError, match="bands is 0"):
        SpectralDistillation(bands=0)
