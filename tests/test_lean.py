"""Memory for backward: packed exactly, the same gradients, and less of it."""

import copy

import pytest
import torch
from torch import nn

from sdsnn_lightning.lean import Packed, lean_memory, pack, unpack
from sdsnn_lightning.networks import SEWResNet, SpikeSCR
from sdsnn_lightning.neurons import Leaky


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [4096, 5003])
def test_spikes_become_bits_and_come_back(dtype, count):
    spikes = (torch.rand(count) < 0.2).to(dtype)
    packed = pack(spikes)
    assert isinstance(packed, Packed)
    assert packed.data.numel() == (count + 7) // 8
    assert torch.equal(unpack(packed), spikes)
    assert unpack(packed).dtype == dtype
    sums = torch.randint(0, 256, (count,)).to(dtype)
    packed = pack(sums)
    assert packed.data.dtype == torch.uint8
    assert packed.data.numel() == count
    assert torch.equal(unpack(packed), sums)


def test_order_of_memory_is_kept():
    spikes = (torch.rand(4, 16, 9, 9) < 0.2).float().to(memory_format=torch.channels_last)
    back = unpack(pack(spikes))
    assert torch.equal(back, spikes)
    assert back.stride() == spikes.stride()


@pytest.mark.parametrize("strange", [0.5, -1.0, 256.0, float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 4500])
def test_other_numbers_stay_as_they_are(strange, place):
    for kind in (2, 256):
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randint(0, kind, (5000,)).to(dtype)
            x[place] = strange
            assert pack(x) is x


def test_parameters_small_tensors_and_tensors_with_gaps_stay_as_they_are():
    ones = torch.ones(100, 100)
    for x in (nn.Parameter(ones.clone()), ones[:10], ones[:, :60], ones.long()):
        assert pack(x) is x


NETWORKS = {
    "sew": (lambda: SEWResNet(4, channels=2, width=0.125), lambda: (torch.rand(6, 6, 2, 32, 32),)),
    "spikescr": (
        lambda: SpikeSCR(4, in_channels=20, width=32, heads=2, dropout=0.1),
        lambda: (torch.rand(60, 8, 20).round(),),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_same_and_memory_is_less(name):
    make, draw = NETWORKS[name]
    torch.manual_seed(0)
    plain, inputs = make(), draw()
    lean = copy.deepcopy(plain)
    weight = torch.randn(4)

    def peak(network, context):
        torch.manual_seed(1)  # of dropout
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            with context:
                loss = (network(*inputs).logits * weight).sum()
            loss.backward()
        events = (e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]")
        now = top = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            now += event.nbytes()
            top = max(top, now)
        return loss.detach(), top

    loss, before = peak(plain, torch.enable_grad())
    lean_loss, after = peak(lean, lean_memory(lean))
    assert torch.equal(lean_loss, loss)
    for (key, a), b in zip(lean.named_parameters(), plain.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.equal(a.grad, b.grad), key
    for a, b in zip(lean.buffers(), plain.buffers(), strict=True):
        assert torch.equal(a, b)  # batch statistics are counted once
    assert after < 0.85 * before
    assert not any(module._forward_hooks for module in lean.modules())


def test_a_change_in_place_is_noticed():
    network = nn.Sequential(nn.Linear(32, 64), nn.BatchNorm1d(64))
    neuron = nn.ModuleDict({"net": network, "lif": Leaky(0.9)})
    with lean_memory(neuron):
        current = network(torch.randn(128, 32))
        loss = neuron["lif"](current.unflatten(0, (8, 16))).sum()
    with torch.no_grad():
        network[1].weight.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place|modified by an inplace"):
        loss.backward()
