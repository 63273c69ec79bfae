"""Regularisers of spikes and logits, on spiking networks that train."""

import pytest
import snntorch
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn
from toy_strategies import FrameMaps, SpikingMaps, ToyEvents

from sdsnn_lightning.distiller import Distiller
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.strategies import ActivityRegularisation, LogitRegularisation
from sdsnn_lightning.strategies.schedules import Constant
from sdsnn_lightning.types import Batch, Output, Step


def step(student):
    target = torch.zeros(2, dtype=torch.long)
    return Step(Batch({}, {}, target, {}), student, None, target, 0.5)


def fit(tmp_path, *strategies, student=SpikingMaps, epochs=6):
    seed_everything(2)
    module = Distiller(student, 3, lambda p: torch.optim.SGD(p, lr=0.1), teacher=FrameMaps)
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, callbacks=list(strategies), enable_checkpointing=False, limit_val_batches=1,
        log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, datamodule=ToyEvents())
    return module, trainer


def test_the_term_is_the_sum_of_the_rates_and_reaches_the_weights():
    torch.manual_seed(0)
    network, strategy = SpikingMaps(3).train(), ActivityRegularisation()
    strategy.watch(network)
    out = network(torch.rand(4, 2, 2, 8, 8))
    first, second = (out.features[name] for name in ("layer1", "layer2"))
    value = strategy.loss(step(out), None)
    assert value.item() == pytest.approx((first.mean() + second.mean()).item())
    assert strategy.logs()["rate"].item() == pytest.approx(
        ((first.sum() + second.sum()) / (first.numel() + second.numel())).item()
    )
    value.backward()
    assert network.layer1.conv.weight.grad.abs().sum() > 0
    assert network.fc.weight.grad is None
    strategy.release()
    network(torch.rand(4, 2, 2, 8, 8))
    assert not strategy._spikes


def test_a_layer_that_is_stepped_counts_once():
    class Stepped(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron = snntorch.Leaky(0.9)

        def forward(self, current):
            membrane, spikes = self.neuron.init_leaky(), []
            for now in current:
                fired, membrane = self.neuron(now, membrane)
                spikes.append(fired)
            return torch.stack(spikes)

    torch.manual_seed(0)
    network, strategy = Stepped().train(), ActivityRegularisation()
    strategy.watch(network)
    rate = network(2 * torch.rand(5, 2, 3)).mean().item()
    assert 0.2 < rate < 0.9
    assert strategy.loss(step(Output(torch.zeros(5, 2, 3), {})), None).item() == pytest.approx(rate)
    assert strategy.logs()["rate"].item() == pytest.approx(rate)


def test_regularised_networks_fire_less(tmp_path):
    rates = {}
    for weight in (0.0, 3.0):
        _, trainer = fit(tmp_path, ActivityRegularisation(weight))
        rates[weight] = trainer.callback_metrics["train/ActivityRegularisation/rate"].item()
    assert rates[3.0] < 0.7 * rates[0.0]


def test_no_hook_and_no_spike_is_left_after_training(tmp_path):
    strategy = ActivityRegularisation()
    module, trainer = fit(tmp_path, strategy, epochs=1)
    assert not strategy._hooks
    assert not strategy._spikes
    assert not any(m._forward_hooks for m in module.student.modules())
    # Four batches an epoch: the last one is at 3/4 of the run, the warm-up of a tenth is over.
    assert trainer.callback_metrics["train/ActivityRegularisation_weight"].item() == pytest.approx(0.01)


def test_warm_up():
    weight = ActivityRegularisation(0.2, warmup=0.1).weight
    assert [weight(p) for p in (0.0, 0.05, 0.1, 1.0)] == pytest.approx([0.0, 0.1, 0.2, 0.2])
    constant = Constant(0.3)
    assert ActivityRegularisation(constant).weight is constant
    assert LogitRegularisation(0.3, warmup=0.0).weight == 0.3


def test_logit_penalty_of_mean_or_steps():
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 4.0]]])
    now = step(Output(logits, {}))
    assert LogitRegularisation().loss(now, None).item() == pytest.approx((1 + 4) / 2)
    assert LogitRegularisation(time="steps").loss(now, None).item() == pytest.approx((4 + 16) / 4)
    assert LogitRegularisation().loss(step(Output(logits[0], {})), None).item() == pytest.approx(2.0)


def test_a_student_without_spikes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="FrameMaps has no spiking neurons"):
        fit(tmp_path, ActivityRegularisation(), student=FrameMaps)
