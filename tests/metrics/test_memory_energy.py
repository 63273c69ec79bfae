"""The memory-aware rule on layers whose every access can be counted by hand. All energies in picojoules."""

import pytest
import torch
from counted import Fires, Net
from torch import nn

from sdsnn_lightning.metrics.energy import measure_energy
from sdsnn_lightning.metrics.memory_energy import access_energy, lemaire_energy

ADD, MAC = 0.1, 3.2  # 32-bit integers


def energy(report, layer):
    (row,) = [row for row in report.rows if row.name == layer]
    return lemaire_energy(row) * 1e12


def ram(words):
    """Below 8 KiB: 10 pJ at 2048 words, nothing at none."""
    return 10 * words / 2048


@pytest.mark.parametrize(
    ("words", "picojoules"),
    [(0, 0), (1024, 5), (2048, 10), (5120, 15), (8192, 20), (135168, 60), (262144, 100), (10**7, 100)],
)
def test_an_access_costs_what_the_size_says(words, picojoules):
    assert access_energy(words) * 1e12 == pytest.approx(picojoules)


def test_linear_with_spikes():
    spikes = torch.zeros(4, 2, 10)  # [T, B, 10]
    spikes[0, 0, :5] = 1
    spikes[3, 1, 0] = 1  # theta = 3 a sample
    report = measure_energy(Net(lambda net, x: net.fc(x), fc=nn.Linear(10, 3)), (spikes,))
    reads = 3 * ram(1000) + 9 * ram(33)  # spikes from the queue, three weights a spike
    potentials = 2 * 9 * ram(3)
    biases = 4 * 3 * (ram(33) + ADD)  # each output at each of 4 steps
    assert energy(report, "fc") == pytest.approx(reads + potentials + biases + 9 * ADD + 9 * ADD)


def test_convolution_with_integers_stride_and_groups():
    x = torch.zeros(2, 1, 4, 6, 6)
    x[0, 0, 0, 2, 2] = 3  # three spikes
    x[1, 0, 3, 4, 4] = 1
    conv = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, bias=False)
    network = Net(lambda net, x: net.conv(x.flatten(0, 1)).flatten(1).unflatten(0, (2, 1)), conv=conv)
    report = measure_energy(network, (x,))
    touched = 4 * 4 * 9  # 4 spikes, 4 channels of a group, 9 taps
    memory = 4 * ram(1000) + touched * (ram(8 * 2 * 9) + 2 * ram(8 * 9))
    operations = 4 * 4 * 2 * 2 * ADD  # ceil(3 / 2) on both sides
    assert energy(report, "conv") == pytest.approx(memory + operations + touched * ADD + 2 * 4 * MAC)


def test_convolution_without_spikes():
    x = torch.rand(1, 2, 3, 8, 8) + 0.1
    conv = nn.Conv2d(3, 5, 3)
    network = Net(lambda net, x: net.conv(x[0]).flatten(1), conv=conv)  # without time: logits [B, K]
    report = measure_energy(network, (x,))
    macs, outputs = 5 * 36 * 27, 5 * 36
    memory = macs * ram(3 * 64) + (macs + outputs) * ram(5 * 27 + 5) + outputs * ram(outputs)
    arithmetic = macs * MAC + outputs * ADD
    addresses = (3 * 64 + outputs + 5 * 9) * ADD
    assert energy(report, "conv") == pytest.approx(memory + arithmetic + addresses)


def test_linear_without_spikes():
    x = torch.rand(1, 2, 10) + 0.1
    report = measure_energy(Net(lambda net, x: net.fc(x[0]), fc=nn.Linear(10, 3, bias=False)), (x,))
    memory = 10 * ram(10) + 30 * ram(30) + 3 * ram(3)
    assert energy(report, "fc") == pytest.approx(memory + 30 * MAC + 13 * ADD)


@pytest.mark.parametrize(("beta", "leak"), [(0.9, MAC), (1.0, 0.0)])
def test_neurons(beta, leak):
    current = -torch.ones(5, 2, 6)
    current[0, :, :2] = 1  # two spikes a sample; potentials of 6 neurons at 5 steps
    network = Net(lambda net, x: net.neuron(x), neuron=Fires(beta=beta))
    assert energy(measure_energy(network, (current,)), "neuron") == pytest.approx(
        30 * (2 * ram(6) + leak) + 2 * (ram(1000) + ADD)
    )


def test_a_normalisation_is_the_bias_it_is_folded_into():
    network = Net(lambda net, x: net.norm(x.flatten(0, 1)).unflatten(0, x.shape[:2]), norm=nn.BatchNorm1d(7))
    report = measure_energy(network, (torch.randn(4, 3, 7),))
    assert energy(report, "norm") == pytest.approx(28 * (ram(7) + ADD))


def test_attention_and_modules_that_are_free():
    spikes = (torch.rand(3, 2, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()  # [T, B, D]
    network = Net(lambda net, x: net.relu(x.transpose(0, 1) @ net.keys), relu=nn.ReLU())
    network.keys = torch.randn(2, 8, 5)
    report = measure_energy(network, (spikes,))
    theta = spikes.sum().item() / 2
    memory = theta * ram(1000) + theta * 5 * (ram(8 * 5) + 2 * ram(5))
    assert energy(report, "network #1") == pytest.approx(memory + theta * 5 * ADD * 2)
    assert energy(report, "relu") == 0


def test_a_convolution_over_time_holds_the_potentials_of_one_step():
    network = Net(lambda net, x: net.conv(x.permute(1, 2, 0)).permute(2, 0, 1), conv=nn.Conv1d(4, 6, 3, padding=1))
    (row,) = measure_energy(network, (torch.ones(50, 2, 4),)).rows
    assert (row.input_words, row.output_words) == (4, 6)


def test_the_same_holds_where_time_and_batch_are_the_sides_of_one_image():
    conv = nn.Conv2d(4, 6, (3, 1), padding=(1, 0))
    network = Net(lambda net, x: net.conv(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0), conv=conv)
    (row,) = measure_energy(network, (torch.ones(50, 2, 4),)).rows
    assert (row.input_words, row.output_words) == (4, 6)
    assert row.macs == 50 * 4 * 6 * 3
