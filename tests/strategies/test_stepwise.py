"""Strategies on the logits of every step: their parts add up, and they take any teacher."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.between_steps import (
    error_aligned_distillation,
    knowledge_sharing,
    selective_alignment,
    strong_weak_distillation,
)
from sdsnn_lightning.losses.temporal import (
    head_tail_divergence,
    mean_entropy,
    self_ensemble_distillation,
    stepwise_cross_entropy,
    stepwise_distillation,
    tet_loss,
)
from sdsnn_lightning.strategies import (
    HeadTailDistillation,
    LogitRegularisation,
    NoiseSmoothedLogits,
    ResponseDistillation,
    SelectiveAlignment,
    TemporalEfficientTraining,
    TemporalKnowledgeSharing,
    TemporalLogits,
    TemporalSelfDistillation,
    TemporalSeparation,
)
from sdsnn_lightning.strategies.stepwise import fill_padding
from sdsnn_lightning.types import Batch, Output, Step

T, B, K = 4, 5, 6
WITH_TEACHER = [
    TemporalLogits, TemporalSeparation, HeadTailDistillation, SelectiveAlignment, NoiseSmoothedLogits,
    ResponseDistillation,
]  # fmt: skip
ALONE = [TemporalEfficientTraining, TemporalSelfDistillation, TemporalKnowledgeSharing, LogitRegularisation]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def step(student=None, teacher=None):
    student = draw(T, B, K) if student is None else student
    target = torch.arange(B)
    return Step(
        Batch({}, {}, target, {}),
        Output(student, {}),
        None if teacher is None else Output(teacher, {}),
        target,
        0.5,
    )


def built(strategy, steps=T, alpha=1.0, smoothing=0.0):
    network = SimpleNamespace(readout=lambda z: z.mean(0) if z.ndim == 3 else z)
    logits = torch.zeros(1, K) if steps is None else torch.zeros(steps, 1, K)
    distiller = SimpleNamespace(
        student=network, teacher=network, label_smoothing=smoothing, alpha=alpha,
        example_outputs=lambda: (Output(logits, {}), None),
    )  # fmt: skip
    assert strategy.build(distiller) is None
    return strategy


@pytest.mark.parametrize("shape", [(B, K), (T, B, K), (16, B, K), (1, B, K)], ids=["no_time", "equal", "finer", "one"])
@pytest.mark.parametrize("method", WITH_TEACHER, ids=lambda m: m.__name__)
def test_any_teacher_teaches_and_learns_nothing(method, shape):
    teacher, now = draw(*shape, seed=1), step()
    value = built(method()).loss(step(now.student.logits, teacher), None)
    value.backward()
    assert value.shape == ()
    assert teacher.grad is None
    assert now.student.logits.grad.abs().sum() > 0


@pytest.mark.parametrize("method", ALONE, ids=lambda m: m.__name__)
def test_without_a_teacher(method):
    assert not method.needs_teacher
    now = step(3 * draw(T, B, K))
    now.student.logits.retain_grad()
    built(method()).loss(now, None).backward()
    assert now.student.logits.grad.abs().sum() > 0


def test_temporal_logits_add_up():
    now = step(teacher=draw(B, K, seed=1))
    z, y = now.student.logits, now.target
    strategy = built(TemporalLogits(), smoothing=0.1)
    expected = (
        F.cross_entropy(z.flatten(0, 1), y.repeat(T), label_smoothing=0.1)
        + 0.2 * stepwise_distillation(now.teacher.logits, z, 3.0)
        + 0.5 * self_ensemble_distillation(z, y, 3.0, "all")
    )
    assert strategy.loss(now, None).item() == pytest.approx(expected.item())
    assert set(strategy.logs()) == {"twce", "twkl", "twsd"}
    correct = built(TemporalLogits(distillation=0.0, ensemble="correct", cross_entropy=0.0))
    assert not correct.needs_teacher
    assert not correct.brings_task
    expected = 0.5 * self_ensemble_distillation(z, y, 3.0, "correct")
    assert correct.loss(step(z), None).item() == pytest.approx(expected.item())


def test_tser_seal_and_tet_add_up():
    now = step(teacher=draw(B, K, seed=1))
    z, y, teacher = now.student.logits, now.target, now.teacher.logits
    task = stepwise_cross_entropy(z, y)
    expected = 0.7 * task + 0.3 * stepwise_distillation(teacher, z, 5.0) - 0.2 * mean_entropy(z, 5.0)
    strategy = built(TemporalSeparation(share=0.3, entropy=0.2, temperature=5.0))
    assert strategy.loss(now, None).item() == pytest.approx(expected.item())
    expected = task + 0.6 * error_aligned_distillation(teacher, z, y) + 0.15 * selective_alignment(z)
    assert built(SelectiveAlignment()).loss(now, None).item() == pytest.approx(expected.item())
    assert built(TemporalEfficientTraining()).loss(now, None).item() == pytest.approx(tet_loss(z, y).item())


def test_arguments_reach_the_losses():
    now = step(3 * draw(T, B, K), draw(T, B, K, seed=1))
    z, y, teacher = now.student.logits, now.target, now.teacher.logits
    shared = built(TemporalKnowledgeSharing(temperature=4.0)).loss(now, None)
    assert shared.item() == pytest.approx(knowledge_sharing(z, y, 4.0).item())
    options = {"direction": "strong_to_weak", "variant": "cascade", "temperature": 3.0}
    ours = built(TemporalSelfDistillation(**options)).loss(now, None)
    assert ours.item() == pytest.approx(strong_weak_distillation(z, **options).item())
    means = head_tail_divergence(teacher.mean(0), z.mean(0), 3.0, 0.7)
    assert built(HeadTailDistillation(1.0, 3.0, 0.7)).loss(now, None).item() == pytest.approx(means.item())
    steps = head_tail_divergence(teacher.mean(0).expand_as(z), z, 3.0, 0.7)
    assert built(HeadTailDistillation(1.0, 3.0, 0.7, "steps")).loss(now, None).item() == pytest.approx(steps.item())


def test_teacher_steps_are_averaged_in_groups():
    teacher = draw(8, B, K, seed=1)
    now = step(teacher=teacher)
    pairs = torch.stack([(teacher[2 * t] + teacher[2 * t + 1]) / 2 for t in range(T)])
    strategy = built(TemporalLogits(teacher_time="steps"))
    assert torch.allclose(strategy.teacher_steps(now), pairs)
    assert torch.allclose(built(TemporalLogits()).teacher_steps(now), teacher.mean(0))
    with pytest.raises(ConfigError, match="the teacher has 6 time steps and the student 4"):
        strategy.loss(step(teacher=draw(6, B, K)), None)


@pytest.mark.parametrize("method", [m for m in WITH_TEACHER + ALONE if hasattr(m, "teacher_time")])
def test_padded_steps_neither_learn_nor_teach(method):
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 0]])  # [B, T]
    real = mask.bool().mT[..., None]
    found = []
    for padding in (0.0, 50.0):
        logits = [torch.where(real, 3 * draw(T, B, K, seed=s), padding * draw(T, B, K, seed=7)) for s in (0, 1)]
        student = logits[0].detach().requires_grad_()
        now = step(student, logits[1].detach())
        now = now._replace(batch=Batch({"mask": mask}, {"mask": mask}, now.target, {}))
        strategy = method(time="steps") if method is HeadTailDistillation else method()
        value = built(strategy).loss(now, None)
        value.backward()
        assert not (student.grad * ~real).any()
        found.append((value.item(), student.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


def test_a_padded_step_holds_the_mean_of_the_real_ones():
    mask = torch.tensor([[1, 1, 1, 1]] * (B - 1) + [[1, 1, 0, 0]])
    now = step()
    filled = fill_padding(now.student.logits, {"mask": mask})
    assert torch.equal(filled[:, :-1], now.student.logits[:, :-1])
    assert torch.allclose(filled[2:, -1], now.student.logits[:2, -1].mean(0))
    assert fill_padding(now.student.logits, {}) is now.student.logits


@pytest.mark.parametrize("method", [m for m in WITH_TEACHER + ALONE if hasattr(m, "brings_task")])
def test_a_student_without_time_is_refused_before_training(method):
    with pytest.raises(ConfigError, match=rf"{method.__name__} compares time steps, but the student's logits"):
        built(method(), steps=None)


def test_a_second_cross_entropy_is_pointed_out():
    with pytest.warns(UserWarning, match=r"set model\.init_args\.alpha: 1"):
        built(TemporalEfficientTraining(), alpha=None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemporalLogits(temperature=0.0), r"TemporalLogits\.temperature is 0\.0; set it above 0"),
        (lambda: TemporalLogits(ensemble="most"), r"TemporalLogits\.ensemble is 'most'; choose one of all, correct"),
        (lambda: TemporalEfficientTraining(regularisation=2), "regularisation is 2; set it to at least 0 and at most"),
        (lambda: TemporalSeparation(entropy=-1.0), r"entropy is -1\.0; set it to at least 0"),
        (lambda: TemporalSelfDistillation(variant="x"), r"TemporalSelfDistillation\.variant is 'x'"),
        (lambda: HeadTailDistillation(head=1.0), r"HeadTailDistillation\.head is 1\.0"),
        (lambda: ResponseDistillation(form="l1"), r"ResponseDistillation\.form is 'l1'; choose one of mse, soft"),
        (lambda: NoiseSmoothedLogits(noise=1.5), r"NoiseSmoothedLogits\.noise is 1\.5"),
        (lambda: LogitRegularisation(warmup=-1), r"LogitRegularisation\.warmup is -1"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
