"""Twins with quantised activations and back, by deep copies."""

import pytest
import torch
from torch import nn
from toy import ToyNet
from toy_strategies import SpikingMaps

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.metrics.spikes import spiking_layers
from sdsnn_lightning.networks.conversion import Converted, copy_weights, quantised_twin, spiking_copy
from sdsnn_lightning.networks.seen import SEEN
from sdsnn_lightning.neurons.quantised import IntegrateAndFire, QuantisedActivation


def tensors(network):
    return {id(value) for value in (*network.parameters(), *network.buffers())}


def test_twin_of_leaky_neurons():
    student = SpikingMaps(3)
    twin = quantised_twin(student, levels=2)
    assert not spiking_layers(twin)
    assert len(spiking_layers(student)) == 2  # left as it is
    assert not tensors(student) & tensors(twin)
    assert set(twin.state_dict()) <= set(student.state_dict())
    x = torch.rand(4, 2, 2, 8, 8)
    out = twin.eval()(x)
    assert set(out.features["layer1"].unique().tolist()) <= {0.0, 0.5, 1.0}
    assert torch.allclose(twin(x[2:3]).logits, out.logits[2:3])  # every frame by itself
    nn.init.ones_(twin.layer1.conv.weight)
    copy_weights(twin, student)
    assert torch.equal(student.layer1.conv.weight, torch.ones_like(student.layer1.conv.weight))


def test_twin_of_integrate_and_fire_is_its_exact_counterpart():
    torch.manual_seed(0)
    student = Converted(3, SpikingMaps, ceiling=2.0)
    steps = 8
    twin = quantised_twin(student, levels=steps)
    assert sum(isinstance(m, QuantisedActivation) for m in twin.modules()) == 2
    assert set(twin.state_dict()) <= set(student.state_dict())
    assert "network.layer1.lif.ceiling" in twin.state_dict()
    copy_weights(twin, student)
    student.eval()
    twin.eval()
    frame = torch.rand(1, 2, 2, 8, 8)
    spiking = student(frame.expand(steps, -1, -1, -1, -1)).features["layer1"].mean(0)
    analogue = twin(frame).features["layer1"][0]
    assert torch.allclose(spiking, analogue, atol=1e-6)
    again = spiking_copy(twin)
    assert not tensors(again) & tensors(twin)
    assert sum(isinstance(m, IntegrateAndFire) for m in again.modules()) == 2
    assert torch.allclose(again.eval()(frame).logits, student(frame).logits)


def test_membrane_readouts_become_the_current():
    seen = SEEN(3, size=32).eval()
    x = torch.rand(3, 1, 3, 32, 32)
    assert quantised_twin(seen).eval()(x, x).logits.shape == seen(x, x).logits.shape


def test_refusals():
    with pytest.raises(ConfigError, match="ToyNet has no spiking neurons"):
        quantised_twin(ToyNet(3))
    with pytest.raises(ConfigError, match="ToyNet has no spiking neurons"):
        Converted(3, ToyNet)
    with pytest.raises(ConfigError, match="no QuantisedActivation"):
        spiking_copy(ToyNet(3))
    with pytest.raises(ConfigError, match="'lif5' puts out its membrane"):
        Converted(3, lambda k: SEEN(k, size=32))
    with pytest.raises(ConfigError, match="has no 'layer1"):
        copy_weights(SpikingMaps(3), ToyNet(3))
