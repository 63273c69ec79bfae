"""Firing rates of known spike trains."""

import pytest
import snntorch
import torch
from torch import nn

from sdsnn_lightning.metrics.spikes import FiringRates, record_spikes


class Passes(snntorch.Leaky):
    """A multi-step layer whose spikes are its input, so that every rate is known; returns `(spikes, membrane)`."""

    def forward(self, current):
        return current, current


class Toy(nn.Module):
    """Two layers; the second fires where the first is silent."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Passes(beta=0.5), Passes(beta=0.5)

    def forward(self, spikes):
        spikes, _ = self.first(spikes)
        return self.second(1 - spikes.flatten(2))[0]


def spikes_4x2x2x2():
    spikes = torch.zeros(4, 2, 2, 2)  # [T, B, 2, 2]
    spikes[:, :, 0, 0] = 1  # one neuron always fires
    spikes[0, 0, 0, 1] = 2.5  # one fires once in eight sample steps, graded
    return spikes


def test_rates_of_known_spikes():
    network = Toy()
    rates = FiringRates(network)
    with rates.watch(network):
        network(spikes_4x2x2x2())
    activity = rates.compute()
    assert activity["first"] == (pytest.approx(9 / 32), 4, 0.5, 0.25)
    assert activity["second"].rate == pytest.approx(24 / 32)  # the graded 2.5 leaves 1 - 2.5, which is not zero
    assert activity["total"].rate == pytest.approx(33 / 64)
    assert activity["total"].neurons == 8
    assert rates.scalars()["dead/first"] == 0.5
    assert rates.scalars()["saturated/total"] == pytest.approx((1 + 3) / 8)


def test_batches_of_different_size_add_up_and_hooks_go():
    network, spikes = Toy(), spikes_4x2x2x2()
    rates = FiringRates(network)
    with rates.watch(network):
        network(spikes[:, :1])
        network(spikes[:3, 1:])  # other sample, other number of steps
    network(torch.ones_like(spikes))  # not watched
    assert rates.compute()["first"].rate == pytest.approx((4 + 1 + 3) / (4 * 7))
    assert not network.first._forward_hooks
    ranks = [FiringRates(network) for _ in range(2)]  # as two processes sum their states
    for rank, part in zip(ranks, (spikes[:, :1], spikes[:3, 1:]), strict=True):
        with rank.watch(network):
            network(part)
    ranks[0].merge_state(ranks[1])
    assert ranks[0].compute() == rates.compute()


def test_stock_layer_stepped_by_hand():
    network = nn.Sequential(nn.Flatten(), snntorch.Leaky(beta=0.5, init_hidden=True, reset_delay=False))
    rates = FiringRates(network)
    with rates.watch(network):
        for current in (0.8, 0.8, 0.8):  # membrane 0.8, 1.2 -> spike, reset to 0.2, 0.9: one spike in three steps
            network(torch.full((2, 5), current))
    assert rates.compute()["1"].rate == pytest.approx(1 / 3)
    assert rates.compute()["1"].neurons == 5


def test_record_keeps_every_spike():
    spikes = record_spikes(Toy(), spikes_4x2x2x2())
    assert spikes["first"].shape == (4, 2, 4)
    assert spikes["first"].dtype == torch.bool
    assert torch.equal(spikes["first"], spikes_4x2x2x2().flatten(2) != 0)


def test_layer_that_is_not_called_is_left_out():
    network = Toy()
    rates = FiringRates(network)
    network.forward = lambda spikes: network.first(spikes)
    with rates.watch(network):
        network(spikes_4x2x2x2())
    assert sorted(rates.compute()) == ["first", "total"]


def test_a_readout_that_cannot_fire_is_no_spiking_layer():
    network = Toy()
    network.readout = snntorch.Leaky(beta=0.9, threshold=float("inf"), reset_mechanism="none")
    assert FiringRates(network).layers == ["first", "second"]
