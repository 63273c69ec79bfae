"""Temporal-spatial self-distillation: prefixes, the finer view, and a head that stays out of the student."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from toy_strategies import SpikingMaps, ToyEvents

from sdsnn_lightning.checkpoints import load_checkpoint
from sdsnn_lightning.distiller import Distiller
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.logits import distillation_loss
from sdsnn_lightning.strategies import TemporalSpatialSelfDistillation as TSSD
from sdsnn_lightning.types import Batch, Output, Step


def fit(tmp_path, strategy, **data):
    seed_everything(3)
    module = Distiller(SpikingMaps, 3, lambda p: torch.optim.SGD(p, lr=0.1))
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, callbacks=[strategy], limit_val_batches=1,
    )  # fmt: skip
    trainer.fit(module, datamodule=ToyEvents(**data))
    return module, trainer


def step(logits, features):
    target = torch.tensor([0, 1])
    return Step(Batch({}, {}, target, {}), Output(logits, features), None, target, 0.0)


def test_the_weak_head_trains_and_is_no_part_of_the_student(tmp_path):
    before = {}

    class Keep(TSSD):
        def build(self, distiller):
            adapter = super().build(distiller)
            before["weight"] = adapter.linear.weight.detach().clone()
            return adapter

    strategy = Keep(name="tssd")
    module, trainer = fit(tmp_path, strategy)
    assert strategy.tapped == "layer2"  # the middle one of layer1, layer2, pooled
    assert strategy.inference_steps == 2
    assert not torch.equal(module.adapters["tssd"].linear.weight, before["weight"])
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    state = load_checkpoint(tmp_path / "it.ckpt", "it")["state_dict"]
    assert "adapters.tssd.linear.weight" in state
    student = {key.removeprefix("network.") for key in state if key.startswith("network.")}
    assert student == set(SpikingMaps(3).state_dict())


def test_the_terms_by_hand(tmp_path):
    strategy = TSSD(temporal=0.5, spatial=2.0, steps=1, tap="pooled", weak_cross_entropy=0.25)
    module, _ = fit(tmp_path, strategy)
    adapter = module.adapters[strategy.name]
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, 3, generator=draw).requires_grad_()
    pooled = torch.rand(4, 2, 8, generator=draw)
    value = strategy.loss(step(logits, {"pooled": pooled}), adapter)
    final, weak = logits.mean(0), adapter.linear(pooled.mean(0))
    expected = (
        0.5 * distillation_loss(final, logits[0], 2.0)
        + 2.0 * distillation_loss(final, weak, 2.0)
        + 0.25 * torch.nn.functional.cross_entropy(weak, torch.tensor([0, 1]))
    )
    assert value.item() == pytest.approx(expected.item())
    value.backward()
    assert logits.grad[1:].abs().sum() == 0  # all steps teach, without gradient
    assert logits.grad[0].abs().sum() > 0
    same = logits.detach()[:1].expand(4, -1, -1)
    strategy.loss(step(same, {"pooled": pooled}), adapter)
    assert strategy.logs()["tsd"].item() == pytest.approx(0.0, abs=1e-6)


def test_a_finer_view_teaches(tmp_path):
    strategy = TSSD(extension="rebin")
    module, _ = fit(tmp_path, strategy, steps=4, teacher_steps=8)
    module.eval()
    fine = {"events": torch.rand(2, 8, 2, 8, 8)}
    coarse = {"events": fine["events"].unflatten(1, (4, 2)).sum(2)}
    target = torch.tensor([0, 1])
    student = module.student(coarse["events"].transpose(0, 1))
    now = Step(Batch(coarse, fine, target, {}), student, None, target, 0.0)
    long = module.student(fine["events"].transpose(0, 1)).logits.mean(0)
    value = strategy.loss(now, module.adapters[strategy.name])
    parts = strategy.logs()
    assert parts["tsd"].item() == pytest.approx(distillation_loss(long, student.logits.mean(0), 2.0).item(), rel=1e-5)
    task = torch.nn.functional.cross_entropy(long, target)
    assert value.item() == pytest.approx((parts["tsd"] + parts["ssd"] + task).item(), rel=1e-5)
    with pytest.raises(ConfigError, match="the teacher's view has 4 time steps and the student's 4"):
        fit(tmp_path, TSSD(extension="rebin"), steps=4, teacher_steps=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 4}, r"steps is 4, but training has 4 time steps"),
        ({"tap": "layer9"}, "SpikingMaps has no feature 'layer9'; it has layer1, layer2, pooled"),
    ],
)
def test_refused_before_training(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path, TSSD(**options))


def test_wrong_options():
    with pytest.raises(ConfigError, match="leave it out with extension: rebin"):
        TSSD(steps=2, extension="rebin")
    with pytest.raises(ConfigError, match="steps is 0"):
        TSSD(steps=0)
