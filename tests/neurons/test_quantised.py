"""The quantised activation and the integrate-and-fire neuron it turns into."""

import pytest
import torch

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.neurons.quantised import IntegrateAndFire, QuantisedActivation, Triangular


def test_activation_by_hand():
    x = torch.tensor([-1.0, 0.9, 1.0, 2.9, 3.0, 7.0, 100.0])
    # L = 4, ceiling 8: steps of 2, rounded half up
    assert QuantisedActivation(4, 8.0)(x).tolist() == [0.0, 0.0, 2.0, 2.0, 4.0, 8.0, 8.0]
    assert QuantisedActivation(4, 8.0, trainable=False, value=1.0)(x).tolist() == [0, 0, 0.25, 0.25, 0.5, 1, 1]
    with pytest.raises(ConfigError, match="levels"):
        QuantisedActivation(0)


def test_gradients_pass_the_floor_and_reach_the_ceiling():
    layer = QuantisedActivation(4, 8.0)
    x = torch.tensor([-3.0, 3.0, 20.0], requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0]
    # d/d ceiling of ceiling * share: share - x / ceiling inside (0.5 - 3 / 8), share 1 above, 0 below.
    assert layer.ceiling.grad.item() == pytest.approx(0.5 - 3 / 8 + 1.0)
    assert not list(QuantisedActivation(4, 1.0, trainable=False).parameters())
    assert QuantisedActivation(4, 1.0, trainable=False).state_dict() == {}


def test_neuron_emits_the_activation_on_the_mean():
    levels = 8
    x = torch.linspace(-2, 11, 53).double()
    x = x[(x * levels / 8.0 + 0.5) % 1 > 1e-6]  # where the floor jumps, the strict threshold answers one lower
    spikes = IntegrateAndFire(8.0).double()(x.expand(levels, 1, -1))
    assert set(spikes.unique().tolist()) == {0.0, 8.0}  # spikes leave with the value of the ceiling
    assert torch.allclose(spikes.mean(0)[0], QuantisedActivation(levels, 8.0).double()(x))


def test_triangular_surrogate():
    x = torch.tensor([-1.5, -0.25, 0.25, 1.5], requires_grad=True)
    spikes = Triangular()(x)
    spikes.sum().backward()
    assert spikes.tolist() == [0, 0, 1, 1]
    assert x.grad.tolist() == [0, 0.75, 0.75, 0]
