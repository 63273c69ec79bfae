import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.logits import kl_divergence
from sdsnn_lightning.strategies.logits import LogitDistillation
from sdsnn_lightning.strategies.mskd import HitConsistency, TemporalConsistency
from sdsnn_lightning.types import Batch, Output, Step

B, T, K = 5, 4, 7


def step(teacher=None, student=None, target=None):
    """A step with random logits; the teacher's are right for all samples but the last, where it says otherwise."""
    draw = torch.Generator().manual_seed(0)
    target = torch.arange(B) if target is None else target
    if teacher is None:
        said = target.clone()
        said[-1] = 6
        teacher = torch.randn(T, B, K, generator=draw) + 6 * F.one_hot(said, K)
    student = torch.randn(T, B, K, generator=draw) if student is None else student
    return Step(Batch({}, {}, target, {}), Output(student, {}), Output(teacher, {}), target, 0.5)


def built(strategy):
    def mean(logits):
        return logits.mean(0) if logits.ndim == 3 else logits

    network = SimpleNamespace(readout=mean)
    assert strategy.build(SimpleNamespace(student=network, teacher=network)) is None
    return strategy


def test_logit_distillation_is_hintons():
    now = step()
    value = built(LogitDistillation(temperature=3.0)).loss(now, None)
    expected = 9 * kl_divergence(now.teacher.logits.mean(0), now.student.logits.mean(0), 3.0)
    assert value.item() == pytest.approx(expected.item())


def test_teacher_readout_follows_a_promoted_teacher():
    distiller = SimpleNamespace(
        student=SimpleNamespace(readout=lambda z: z.mean(0)), teacher=SimpleNamespace(readout=lambda z: z.mean(0))
    )
    strategy = LogitDistillation()
    strategy.build(distiller)
    before = strategy.loss(step(), None)
    distiller.teacher = SimpleNamespace(readout=lambda z: z[-1])
    assert strategy.loss(step(), None) != before


def test_hit_rate_is_logged():
    strategy = built(HitConsistency())
    assert strategy.logs() == {}
    strategy.loss(step(), None)
    assert strategy.logs()["hit_rate"] == pytest.approx(4 / 5)
    now = step()
    now.teacher.logits[0, 0] = 0
    now.teacher.logits[0, 0, 3] = 1
    by_step = built(HitConsistency(reading="C"))
    by_step.loss(now, None)
    assert by_step.logs()["hit_rate"] == pytest.approx(15 / 20)


def test_total_is_the_papers():
    now, alpha = step(), 0.3
    teacher, student = now.teacher.logits, now.student.logits
    terms = [built(HitConsistency()).loss(now, None), built(TemporalConsistency()).loss(now, None)]
    total = (1 - alpha) * F.cross_entropy(student.mean(0), now.target) + alpha * sum(terms)

    # The same, spelled out sample by sample and step by step.
    def kl(z_teacher, z_student):
        p, q = (z_teacher / 2).softmax(-1).tolist(), (z_student / 2).softmax(-1).tolist()
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    task = -sum(student.mean(0)[b].log_softmax(-1)[b].item() for b in range(B)) / B
    hit = 4 * sum(kl(teacher[:, b].mean(0), student[:, b].mean(0)) for b in range(B - 1)) / (B - 1)
    temporal = 4 * sum(kl(teacher[t, b], student[t, b]) for t in range(T) for b in range(B)) / (T * B)
    assert total.item() == pytest.approx((1 - alpha) * task + alpha * hit + alpha * temporal, rel=1e-5)


@pytest.mark.parametrize("reading", ["A", "B", "C"])
@pytest.mark.parametrize("method", [HitConsistency, TemporalConsistency])
def test_identical_networks_cost_nothing_and_teachers_learn_nothing(method, reading):
    strategy = built(method(reading=reading))
    now = step()
    assert strategy.loss(step(now.teacher.logits, now.teacher.logits.clone()), None).abs() < 1e-5
    teacher, student = now.teacher.logits.requires_grad_(), now.student.logits.requires_grad_()
    strategy.loss(step(teacher, student), None).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_every_reading_differs():
    now = step()
    strategies = [method(reading=r) for method in (HitConsistency, TemporalConsistency) for r in "ABC"]
    strategies += [TemporalConsistency(reading=r, confidence_weights=True) for r in "AC"]
    strategies += [TemporalConsistency(reading="C", change="kl")]
    values = [round(built(strategy).loss(now, None).item(), 4) for strategy in strategies]
    assert len(set(values)) == len(values)


def test_a_teacher_without_time_is_repeated_for_per_step_readings():
    still = torch.randn(B, K)
    repeated = still.expand(T, B, K)
    for strategy in (HitConsistency(reading="C"), TemporalConsistency()):
        assert torch.equal(built(strategy).loss(step(still), None), built(strategy).loss(step(repeated), None))
    for reading in "BC":
        with pytest.raises(ConfigError, match="use reading A"):
            built(TemporalConsistency(reading=reading)).loss(step(still), None)


def test_bad_configurations_are_refused():
    with pytest.raises(ConfigError, match=r"HitConsistency\.reading is 'D'; choose one of A, B, C"):
        HitConsistency(reading="D")
    with pytest.raises(ConfigError, match=r"TemporalConsistency\.change is 'l1'"):
        TemporalConsistency(change="l1")
    with pytest.raises(ConfigError, match="confidence_weights"):
        TemporalConsistency(reading="B", confidence_weights=True)
    with pytest.raises(ConfigError, match="the teacher has 3 and the student 4"):
        built(TemporalConsistency()).loss(step(torch.zeros(3, B, K)), None)
    with pytest.raises(ConfigError, match="have none"):
        built(TemporalConsistency()).loss(step(student=torch.zeros(B, K)), None)
