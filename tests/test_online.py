import weakref
from typing import ClassVar

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from sdsnn_lightning import OnlineClassifier, Output, SegmentedClassifier
from sdsnn_lightning.data import CIFAR10DVS, SpeechCommands
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.temporal import stepwise_cross_entropy
from sdsnn_lightning.networks import SEWResNet, SpikingKeyword
from sdsnn_lightning.neurons import PLIF, Leaky
from sdsnn_lightning.neurons.sltt import SpatialLeaky
from sdsnn_lightning.segments import carried_states
from sdsnn_lightning.types import Batch

QUIET = {
    "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
    "accelerator": "cpu",
}  # fmt: skip


class Dense(nn.Module):
    """Two spiking layers without batch norm, so that step by step and whole are the same function in training, too."""

    inputs: ClassVar[tuple[str, ...]] = ("x",)

    def __init__(self, temporal_gradient: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(6, 9), nn.Linear(9, 9), nn.Linear(9, 3)
        self.neuron = SpatialLeaky(beta=0.8, threshold=0.3, learn_beta=True, temporal_gradient=temporal_gradient)
        self.plif = PLIF(threshold=0.2, temporal_gradient=temporal_gradient)

    def forward(self, x):
        h = self.neuron(self.first(x))
        return Output(self.head(self.plif(self.second(h))), {"h": h})

    def readout(self, logits):
        return logits.mean(0)


def batch(steps, samples=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    view = {"x": torch.randn(samples, steps, 6, generator=generator, dtype=dtype)}
    return Batch(view, view, torch.arange(samples) % 3, {})


def online(network):
    model = OnlineClassifier(network, num_classes=3, optimizer=torch.optim.SGD)
    model._finish = lambda terms, total: total  # logging needs a Trainer
    return model


def test_gradients_are_those_of_the_whole_sequence_without_gradient_through_time():
    whole = Dense(temporal_gradient=False).double()
    data = batch(7)
    logits = whole(data.student["x"].transpose(0, 1)).logits
    loss = stepwise_cross_entropy(logits, data.target)
    loss.backward()
    stepped = Dense().double()
    ours = online(stepped).training_step(data, 0)
    ours.backward()
    assert ours.item() == pytest.approx(loss.item(), rel=1e-6)  # the task loss is float32
    for (name, a), b in zip(whole.named_parameters(), stepped.parameters(), strict=True):
        assert a.grad.abs().max() > 0, name
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-5, atol=1e-7, msg=name)
    assert not any("forward" in module.__dict__ for module in stepped.modules())


class TwoBiases(Dense):
    """Two parameters whose sum is used: autograd gives them one and the same gradient tensor."""

    def __init__(self, temporal_gradient=True):
        super().__init__(temporal_gradient)
        self.one, self.other = (nn.Parameter(torch.zeros(9)) for _ in range(2))

    def forward(self, x):
        h = self.neuron(self.first(x) + (self.one + self.other))
        return Output(self.head(self.plif(self.second(h))), {"h": h})


def test_parameters_that_share_a_gradient_get_it_once():
    whole, stepped, data = TwoBiases(temporal_gradient=False).double(), TwoBiases().double(), batch(4)
    stepwise_cross_entropy(whole(data.student["x"].transpose(0, 1)).logits, data.target).backward()
    online(stepped).training_step(data, 0).backward()
    for (name, a), b in zip(whole.named_parameters(), stepped.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-5, atol=1e-7, msg=name)


def test_scaled_losses_scale_gradients():
    one, four = Dense().double(), Dense().double()
    online(one).training_step(batch(3), 0).backward()
    (4 * online(four).training_step(batch(3), 0)).backward()
    for a, b in zip(one.parameters(), four.parameters(), strict=True):
        torch.testing.assert_close(b.grad, 4 * a.grad)


def most_kept(steps, train):
    """Most bytes that a training step keeps for its backward passes at any one time."""
    alive, most = 0, 0

    class Kept:
        def __init__(self, tensor):
            nonlocal alive, most
            self.tensor = tensor
            alive += tensor.nbytes
            most = max(most, alive)
            weakref.finalize(self, let_go, tensor.nbytes)

    def let_go(size):
        nonlocal alive
        alive -= size

    data = batch(steps)
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        train(data)
    return most


def test_memory_does_not_grow_with_time():
    model = online(Dense().double())
    few, many = (most_kept(steps, lambda data: model.training_step(data, 0).backward()) for steps in (4, 64))
    assert many == few

    whole = Dense(temporal_gradient=False).double()

    def at_once(data):
        stepwise_cross_entropy(whole(data.student["x"].transpose(0, 1)).logits, data.target).backward()

    assert most_kept(64, at_once) > 8 * most_kept(4, at_once)


def test_states_are_carried_between_calls():
    neuron = Leaky(beta=0.9)
    current = torch.rand(6, 2, 3)
    network = nn.ModuleDict({"neuron": neuron})
    with carried_states(network):
        frames = torch.cat([neuron(frame[None]) for frame in current])
    assert torch.equal(frames, neuron(current))
    assert frames.sum() > 0


def events(folder):
    return CIFAR10DVS(
        root=str(folder / "none"), simulated_root=str(folder / "set"), simulated_recordings=3, size=16, batch_size=4,
        val_fraction=0.34,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [OnlineClassifier, SegmentedClassifier])
def test_a_convolutional_network_trains(tmp_path, kind):
    torch.manual_seed(0)
    student = SEWResNet(10, modality="events", channels=2, width=0.05)
    model = kind(student, num_classes=10, optimizer=lambda p: torch.optim.SGD(p, lr=0.05))
    before = [p.detach().clone() for p in student.parameters()]
    trainer = Trainer(max_steps=2, limit_val_batches=1, **QUIET)
    trainer.fit(model, events(tmp_path))
    moved = [not torch.equal(p, q) for p, q in zip(student.parameters(), before, strict=True)]
    assert sum(moved) > 0.9 * len(moved)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


@pytest.mark.parametrize(
    ("lean", "plugins", "said"),
    [
        (True, [], "lean_memory saves nothing where"),
        (False, [MixedPrecision("16-mixed", "cpu")], "set bf16-mixed or 32-true"),  # as on a GPU
    ],
)
def test_what_steps_of_their_own_cannot_use_is_refused(tmp_path, lean, plugins, said):
    student = SEWResNet(10, modality="events", channels=2, width=0.05)
    model = OnlineClassifier(student, num_classes=10, optimizer=torch.optim.SGD, lean_memory=lean)
    with pytest.raises(ConfigError, match=said):
        Trainer(max_steps=1, plugins=plugins, **QUIET).fit(model, events(tmp_path))


def test_a_network_that_mixes_steps_elsewhere_is_refused(tmp_path):
    data = SpeechCommands(
        root=str(tmp_path / "none"), simulated_root=str(tmp_path / "words"), step_ms=25, n_mels=8, batch_size=4
    )
    model = OnlineClassifier(
        SpikingKeyword(data.num_classes, mels=8, hidden=6), num_classes=data.num_classes, optimizer=torch.optim.SGD
    )
    with pytest.raises(ConfigError, match="SpikingKeyword mixes time steps outside its neurons"):
        Trainer(max_steps=1, **QUIET).fit(model, data)
