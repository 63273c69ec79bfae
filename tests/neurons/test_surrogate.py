"""The surrogates: values, derivatives, and recognition of snnTorch's own."""

import pytest
import snntorch
import torch
from snntorch import surrogate as stock

from sdsnn_lightning.neurons import ATan, FastSigmoid, Leaky, Rectangular
from sdsnn_lightning.neurons.surrogate import recognise


@pytest.mark.parametrize(
    ("closure", "ours"),
    [(stock.atan(3.0), ATan(3.0)), (stock.fast_sigmoid(7), FastSigmoid(7)), (None, ATan(2.0))],
)
def test_stock_surrogates_are_recognised(closure, ours):
    neuron = Leaky(0.9, spike_grad=closure)
    assert neuron._fused
    assert neuron._surrogate == ours
    distance = torch.linspace(-2, 2, 101, requires_grad=True)
    spikes = [f(distance) for f in (ours, closure or stock.atan())]
    assert torch.equal(*spikes)
    grads = [torch.autograd.grad(s.sum(), distance)[0] for s in spikes]
    torch.testing.assert_close(*grads, rtol=1e-6, atol=0)


def test_rectangular_window():
    distance = torch.tensor([-0.5, -0.49, 0.0, 0.49, 0.5], requires_grad=True)
    Rectangular(1.0)(distance).sum().backward()
    assert distance.grad.tolist() == [0, 1, 1, 1, 0]


def test_others_are_not_recognised():
    assert recognise(stock.sigmoid(4)) is None
    assert recognise(torch.nn.Identity()) is None
    assert recognise(stock.atan(torch.tensor(2.0))) is None


@pytest.mark.parametrize("surrogate", [ATan(1.5), FastSigmoid(10.0), Rectangular(0.8)])
def test_peak_dtype_and_use_in_plain_snntorch(surrogate):
    peak = {"atan": 0.75, "fast_sigmoid": 1.0, "rectangular": 1.0}[surrogate.kind]
    distance = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    spikes = surrogate(distance)
    assert spikes.dtype == torch.float64
    assert spikes.tolist() == [0, 0, 0]
    assert torch.autograd.grad(spikes.sum(), distance)[0].tolist() == [peak] * 3
    spikes, _ = snntorch.Leaky(0.9, spike_grad=surrogate)(torch.tensor([0.5, 1.5]), torch.zeros(2))
    assert spikes.tolist() == [0, 1]
