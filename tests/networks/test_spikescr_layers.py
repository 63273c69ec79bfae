import math

import pytest
import torch
from torch import nn

from sdsnn_lightning.networks.spikescr import SpikeSCR
from sdsnn_lightning.networks.spikescr_layers import (
    Attention,
    TimeConv,
    TimeDropout,
    attend,
    make_neuron,
    rotate,
    rotation,
)
from sdsnn_lightning.neurons import ATan, Leaky


class Fire(torch.autograd.Function):
    """Step at zero included; its derivative as the paper's code has it."""

    @staticmethod
    def forward(ctx, distance):
        ctx.save_for_backward(distance)
        return (distance >= 0).to(distance.dtype)

    @staticmethod
    def backward(ctx, grad):
        (distance,) = ctx.saved_tensors
        return grad * (5 / 2) / (1 + (math.pi / 2 * 5 * distance) ** 2)


def test_the_neuron_charges_fires_and_resets_in_one_step_with_the_papers_gradient():
    current = torch.randn(40, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.3
    a, b = current.clone().requires_grad_(), current.clone().requires_grad_()
    v, expected = torch.zeros(3, 7, dtype=torch.float64), []
    for x in a:
        v = v * (1 - 1 / 2.0) + x
        s = Fire.apply(v - 1.0)
        v = (1 - s.detach()) * v
        expected.append(s)
    expected = torch.stack(expected)
    spikes = make_neuron("leaky").double()(b)
    assert torch.equal(spikes, expected)
    assert 0.1 < spikes.mean() < 0.5
    weight = torch.randn(40, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (expected * weight).sum().backward()
    (spikes * weight).sum().backward()
    # The threshold lies 6e-8 below 1, which moves the surrogate by as little.
    torch.testing.assert_close(b.grad, a.grad, rtol=1e-5, atol=1e-6)

    # snnTorch's undelayed reset fires alike, but its gradient is another.
    c = current.clone().requires_grad_()
    undelayed = Leaky(0.5, spike_grad=ATan(5.0), reset_mechanism="zero", reset_delay=False).double()(c)
    assert torch.equal(undelayed, expected)
    (undelayed * weight).sum().backward()
    assert (c.grad - a.grad).abs().max() > 0.1


def test_the_neuron_fires_at_its_threshold_and_forgets():
    current = torch.tensor([1.0, 0.0, 0.75, 0.625, 0.999, 0.0, 0.5])[:, None, None]
    # v: 1 (fires), 0, 0.75, 0.375 + 0.625 = 1 (fires), 0.999, 0.4995, 0.74975
    assert make_neuron("leaky")(current).flatten().tolist() == [1, 0, 0, 1, 0, 0, 0]
    beta = make_neuron("leaky", tau=4.0).beta
    assert beta.item() == 0.75
    assert isinstance(make_neuron("relu"), nn.ReLU)


def test_rotation_by_hand():
    by = rotation(3, torch.tensor([1.0, 0.01]))  # d = 4: theta^0, theta^(-1/2)
    x = torch.tensor([1.0, 0.0, 0.0, 1.0]).expand(3, 1, 4).contiguous()
    turned = rotate(x, by)[:, 0]
    assert turned[0].tolist() == [1, 0, 0, 1]
    expected = [math.cos(2), math.sin(2), -math.sin(0.02), math.cos(0.02)]
    assert turned[2].tolist() == pytest.approx(expected, abs=1e-6)
    frequencies = SpikeSCR(20).frequencies  # d = 16
    assert frequencies.tolist() == pytest.approx([10000 ** (-2 * i / 16) for i in range(8)], rel=1e-6)


def test_rotated_products_know_distances_only():
    by = rotation(20, SpikeSCR(5, width=16, heads=2).double().frequencies)
    q, k = torch.randn(2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q, k = (rotate(x.expand(20, 1, 16).contiguous(), by).view(20, 2, 8) for x in (q, k))  # two heads
    products = torch.einsum("thd,shd->hts", q, k)
    for distance in (0, 1, 7):
        diagonal = products.diagonal(distance, 1, 2)
        torch.testing.assert_close(diagonal, diagonal[:, :1].expand_as(diagonal))
    assert (products[:, 0, 0] - products[:, 0, 7]).abs().min() > 1e-3


def test_attention_is_plain_products_in_either_order():
    q, k, v = torch.tensor([[[1.0, 0], [1, 1]]]), torch.tensor([[[1.0, 1], [0, 1]]]), torch.tensor([[[1.0, 0], [1, 1]]])
    # Scores [[1, 0], [2, 1]]; times v [[1, 0], [3, 1]]; over sqrt(2).
    expected = [1 / math.sqrt(2), 0, 3 / math.sqrt(2), 1 / math.sqrt(2)]
    for context_first in (False, True):
        assert attend(q, k, v, context_first).flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("official_layout", [False, True])
def test_masked_keys_hide_the_values_of_their_frames(official_layout):
    torch.manual_seed(0)
    layer = Attention(16, 2, "leaky", 2.0, 0.0, "auto", official_layout).eval()
    by = rotation(12, torch.tensor([1.0, 0.1, 0.01, 0.001]))
    x = torch.randint(0, 6, (12, 1, 16)).float()
    keys = torch.ones(12, 1, 1)
    keys[8:] = 0
    seen = []
    layer.mixed.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for _ in range(2):
        layer(x, by, keys)
        layer(x, by, None)
        # Then once more, with other values on padded frames.
        layer.value.register_forward_hook(lambda _, args, spikes: torch.where(keys == 0, 1 - spikes, spikes))
    assert seen[0].any()
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[1], seen[3])


@pytest.mark.parametrize("groups", [1, 6])
def test_convolution_over_time_is_centred_and_never_mixes_samples(groups):
    torch.manual_seed(0)
    layer = TimeConv(6, 12, 5, groups=groups).double()
    x = torch.randn(9, 3, 6, dtype=torch.float64)
    kernel = layer.conv.weight.squeeze(-1)
    for i in range(3):
        expected = nn.functional.conv1d(x[:, i].T[None], kernel, layer.conv.bias, padding=2, groups=groups)[0].T
        torch.testing.assert_close(layer(x)[:, i], expected)


def test_dropout_is_shared_by_all_frames():
    torch.manual_seed(0)
    layer = TimeDropout(0.25)
    out = layer(torch.ones(7, 40, 50))
    assert torch.equal(out, out[:1].expand_as(out))
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (out[0] == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert not torch.equal(out[0, 0], out[0, 1])  # another mask for another sample
    x = torch.randn(7, 4, 5)
    assert layer.eval()(x) is x
    assert TimeDropout(0.0)(x) is x


def test_every_dropout_of_the_network_silences_whole_samples():
    torch.manual_seed(0)
    network = SpikeSCR(5, in_channels=12, width=32, heads=2, dropout=0.5)
    seen = []
    for module in network.modules():
        if isinstance(module, TimeDropout) and module.p:
            module.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
        if isinstance(module, Leaky):  # whose mask comes with the current
            module.register_forward_hook(lambda neuron, args, out: seen.append((neuron.forward(args[0]), out)))
    network(torch.rand(30, 4, 12) * 4)
    whole = 3 + 2 + 1 + 1  # queries, keys and values, the former two turned; what goes into the gate, and its own
    # Embedding, attention, feed-forward, convolution, feed-forward, head.
    assert len(seen) == 1 + 2 + 2 + 3 + 2 + 1 + whole
    masked = [(x, out) for x, out in seen if not torch.equal(x, out)]
    assert len(masked) == len(seen) - whole
    for x, out in masked:
        alive = (out != 0).any(0)
        assert torch.equal(out, x * alive * 2)
        heard = (x != 0).any(0)
        assert 0.2 < alive[heard].float().mean() < 0.8
    seen.clear()
    network.eval()(torch.rand(30, 4, 12) * 4)
    assert all(torch.equal(x, out) for x, out in seen)
