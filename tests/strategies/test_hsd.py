"""Hybrid step-wise distillation: two parts of a run, two objects, two halves; the released code's faults stay out."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from toy import ToyData, ToyNet
from toy_strategies import SpikingMaps, ToyEvents

from sdsnn_lightning.distiller import Distiller
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.temporal import stepwise_distillation
from sdsnn_lightning.networks.conversion import Converted
from sdsnn_lightning.strategies.hsd import HybridStepwiseDistillation, halves
from sdsnn_lightning.types import Batch, Step


class Watch(Callback):
    """What every batch starts from."""

    def __init__(self):
        self.frozen, self.weights, self.state = [], [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        strategy = next(c for c in trainer.callbacks if isinstance(c, HybridStepwiseDistillation))
        teacher = strategy.frozen
        self.frozen.append(None if teacher is None else teacher.layer1.conv.weight.clone())
        self.weights.append(module.student.layer1.conv.weight.detach().clone())
        self.state.append(len(trainer.optimizers[0].state))


def make(student=SpikingMaps):
    seed_everything(4)
    return Distiller(student, 3, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), alpha=1.0)


def fit(tmp_path, module, strategy, *others, epochs=2, ckpt_path=None, data=None):
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, callbacks=[strategy, *others], limit_val_batches=1, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data or ToyEvents(), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def test_halves():
    first, second = halves({"events": torch.arange(5)[None], "frames": torch.zeros(1, 1)})
    assert first["events"].tolist() == [[0, 1]]
    assert second["events"].tolist() == [[2, 3, 4]]
    assert first["frames"].shape == second["frames"].shape == (1, 1)


def test_a_run_in_two_parts(tmp_path):
    watch, strategy = Watch(), HybridStepwiseDistillation()
    module = make()
    start = module.student.layer1.conv.weight.detach().clone()
    fit(tmp_path, module, strategy, watch)  # two epochs of four batches
    assert [x is None for x in watch.frozen] == [True] * 4 + [False] * 4
    # The student waits: the cross-entropy of its read-out counts for nothing.
    assert all(torch.equal(x, start) for x in watch.weights[:4])
    # At the turn it takes the twin's weights, which have moved, and the momentum starts anew.
    assert torch.equal(watch.weights[4], watch.frozen[4])
    assert not torch.equal(watch.weights[4], start)
    assert watch.state[3] > 0
    assert watch.state[4] == 0
    # Then it learns, and its teacher, another object, does not.
    assert not torch.equal(watch.weights[7], watch.weights[4])
    assert torch.equal(watch.frozen[7], watch.frozen[4])
    twin = {id(p) for p in strategy.frozen.parameters()}
    assert not twin & {id(p) for p in module.student.parameters()}
    assert not twin & {id(p) for p in module.adapters[strategy.name].parameters()}
    assert not strategy.frozen.training
    assert not any(p.requires_grad for p in strategy.frozen.parameters())


@pytest.mark.parametrize("student", [SpikingMaps, lambda k: Converted(k, SpikingMaps, ceiling=2.0)])
def test_both_losses_by_hand(tmp_path, student):
    strategy = HybridStepwiseDistillation(distillation=0.5)
    module = make(student)
    fit(tmp_path, module, strategy)
    module.eval()
    events = torch.rand(2, 4, 2, 8, 8)
    target = torch.tensor([0, 2])
    now = Step(Batch({"events": events}, {}, target, {}), None, None, target, 1.0)
    adapter = module.adapters[strategy.name]
    early, late = events[:, :2].transpose(0, 1), events[:, 2:].transpose(0, 1)
    teacher, logits = strategy.frozen(early).logits.mean(0), module.student(late).logits
    entropy = torch.nn.functional.cross_entropy
    expected = entropy(logits.mean(0), target) + 0.5 * stepwise_distillation(teacher, logits, 2.0)
    value = strategy.loss(now, adapter)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    # In a distributed run every parameter has a part in the loss, the twin's a part of nothing.
    assert all(p.grad is not None and not p.grad.any() for p in adapter.parameters())
    strategy.frozen = None
    expected = entropy(adapter(early).logits.mean(0), target)
    assert strategy.loss(now, adapter).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_resumed_run_has_its_teacher_back(tmp_path):
    whole, strategy = make(), HybridStepwiseDistillation(pretraining=0.25)
    trainer = fit(tmp_path, whole, strategy, epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    again = HybridStepwiseDistillation(pretraining=0.25)
    resumed = make()
    fit(tmp_path, resumed, again, epochs=3, ckpt_path=tmp_path / "half.ckpt")
    for key, value in strategy.frozen.state_dict().items():
        assert torch.equal(again.frozen.state_dict()[key], value)


def test_refusals(tmp_path):
    with pytest.raises(ConfigError, match="divides the frames in two, but there is 1"):
        fit(tmp_path, make(), HybridStepwiseDistillation(), data=ToyEvents(steps=1))
    with pytest.raises(ConfigError, match="ToyNet has no spiking neurons"):
        fit(tmp_path, make(ToyNet), HybridStepwiseDistillation(), data=ToyData())
    with pytest.raises(ConfigError, match="pretraining is 1.5"):
        HybridStepwiseDistillation(pretraining=1.5)
    with pytest.raises(ConfigError, match="pretraining is 1: the student itself would never learn"):
        HybridStepwiseDistillation(pretraining=1.0)
