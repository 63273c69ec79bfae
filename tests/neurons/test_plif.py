import copy
import math

import pytest
import torch

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.metrics.spikes import spiking_layers
from sdsnn_lightning.neurons import PLIF, ATan, Leaky, SpatialLeaky


def stepped(x, beta, scale, threshold, temporal):
    """The neuron as a loop: charge, fire, reset; without `temporal` the membrane is detached after every step."""
    u, spikes = torch.zeros_like(x[0]), []
    for x_t in x:
        u = beta * u + scale * x_t
        s = ATan(2.0)(u - threshold)
        spikes.append(s)
        u = u * (1 - s.detach())
        if not temporal:
            u = u.detach()
    return torch.stack(spikes)


@pytest.mark.parametrize("temporal", [True, False])
@pytest.mark.parametrize("tau", [2.0, 1.3, 8.0])
def test_equals_a_stepped_reference_in_float64(temporal, tau):
    torch.manual_seed(0)
    neuron = PLIF(tau, temporal_gradient=temporal).double()
    x = (torch.randn(7, 3, 5, dtype=torch.float64) * 2 + 0.5) * tau
    weight = torch.randn(7, 3, 5, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    w = torch.tensor(-math.log(tau - 1), dtype=torch.float32).double().requires_grad_()
    spikes = neuron(ours)
    expected = stepped(theirs, 1 - torch.sigmoid(w), torch.sigmoid(w), neuron.threshold, temporal)
    assert torch.equal(spikes, expected)
    assert 0.1 < spikes.mean() < 0.9
    (spikes * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)
    assert torch.allclose(neuron.w.grad, w.grad, rtol=1e-10)
    assert w.grad.abs() > 1e-3


@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
@pytest.mark.parametrize("learn", [True, False])
def test_no_gradient_through_time_equals_a_loop_that_detaches(reset, learn):
    torch.manual_seed(1)
    options = dict(beta=0.7, threshold=0.9, reset_mechanism=reset, learn_beta=learn, learn_threshold=learn)
    neuron = SpatialLeaky(**options, temporal_gradient=False).double()
    plain = Leaky(**options).double()
    x = torch.randn(6, 2, 4, dtype=torch.float64) + 0.5
    weight = torch.randn_like(x)
    ours = x.clone().requires_grad_()
    (neuron(ours) * weight).sum().backward()
    theirs, state, total = x.clone().requires_grad_(), None, 0
    for x_t, weight_t in zip(theirs, weight, strict=True):
        spikes, state = plain.step(x_t, state)
        state = state.detach()
        total = total + (spikes * weight_t).sum()
    total.backward()
    assert torch.equal(neuron(x), plain(x))
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-12)
    if learn:
        assert torch.allclose(neuron.beta.grad, plain.beta.grad, rtol=1e-10)
    full = x.clone().requires_grad_()
    (plain(full) * weight).sum().backward()
    assert not torch.allclose(ours.grad, full.grad)  # and not what `Leaky` does
    assert torch.equal(ours.grad[-1], full.grad[-1])  # but for the last step, after which nothing comes


@pytest.mark.parametrize("temporal", [True, False])
def test_a_decay_that_is_clamped_gets_no_gradient(temporal):
    """The membrane decays by 1 where beta has grown beyond, and then does not change with beta."""
    neuron = SpatialLeaky(beta=1.2, learn_beta=True, temporal_gradient=temporal)
    neuron(torch.full((4, 1, 3), 0.4)).sum().backward()
    assert neuron.beta.grad.item() == 0


def test_a_step_gets_no_gradient_from_later_losses():
    x = torch.full((4, 1, 3), 0.8, requires_grad=True)
    PLIF(temporal_gradient=False)(x)[2].sum().backward()
    assert x.grad[2].abs().min() > 0
    assert x.grad[[0, 1, 3]].abs().max() == 0
    x.grad = None
    PLIF()(x)[2].sum().backward()
    assert x.grad[0].abs().min() > 0


def test_parameter_is_the_official_one():
    neuron = PLIF(tau=2.0)
    assert [name for name, _ in neuron.named_parameters()] == ["w"]
    assert neuron.w.shape == ()
    assert neuron.w.item() == 0
    assert neuron.beta.item() == 0.5
    assert PLIF(tau=1.75).tau.item() == pytest.approx(1.75)
    assert not list(PLIF(learn=False).parameters())
    assert "beta" not in neuron.state_dict()
    neuron.load_state_dict({**neuron.state_dict(), "w": torch.tensor(1.0)})
    assert neuron.beta.item() == pytest.approx(1 - 1 / (1 + math.exp(-1)))


def test_fires_from_the_threshold_on():
    assert PLIF(tau=2.0, threshold=0.5)(torch.ones(1, 1, 1)).item() == 1  # u = 1 / 2 exactly
    assert PLIF(tau=2.0, threshold=0.5)(torch.full((1, 1, 1), 0.99)).item() == 0


def test_steps_online_copies_and_is_counted():
    torch.manual_seed(0)
    neuron, state, x = copy.deepcopy(PLIF()), None, torch.randn(5, 2, 3) * 3
    whole = neuron(x)
    for x_t, expected in zip(x, whole, strict=True):
        spikes, state = neuron.step(x_t, state)
        assert torch.equal(spikes, expected)
    assert list(spiking_layers(torch.nn.Sequential(neuron))) == ["0"]
    spikes, membrane = PLIF(output=True, temporal_gradient=False)(x)
    assert torch.equal(spikes, whole)
    assert torch.equal(membrane > 1 - 1e-7, whole.bool())


def test_half_precision_keeps_its_dtype():
    for temporal in (True, False):
        spikes = PLIF(temporal_gradient=temporal)(torch.full((2, 1, 2), 3.0, dtype=torch.bfloat16))
        assert spikes.dtype == torch.bfloat16
        assert spikes.min() == 1


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match="tau is 1.0"):
        PLIF(tau=1.0)
    with pytest.raises(ConfigError, match="reset_delay"):
        SpatialLeaky(0.5, reset_delay=False, temporal_gradient=False)
    with pytest.raises(ConfigError, match="inhibition"):
        SpatialLeaky(0.5, inhibition=True, temporal_gradient=False)


@pytest.mark.parametrize(
    "neuron", [PLIF(1.7), PLIF(1.7, temporal_gradient=False), SpatialLeaky(0.8, 0.6, temporal_gradient=False)]
)
def test_a_gain_is_what_multiplying_afterwards_gives(neuron):
    torch.manual_seed(0)
    current, gain = torch.randn(9, 3, 5, requires_grad=True), torch.rand(3, 5)
    weight = torch.randn(9, 3, 5)
    ours, expected = neuron(current, gain), neuron(current) * gain
    assert expected.sum() > 0
    assert torch.equal(ours, expected)
    gradients = [torch.autograd.grad((out * weight).sum(), current)[0] for out in (ours, expected)]
    assert torch.equal(*gradients)
