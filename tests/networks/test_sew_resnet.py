import pytest
import torch

from sdsnn_lightning.networks.resnet import ResNet
from sdsnn_lightning.networks.sew_resnet import SEWResNet, join


def convolution_macs(network, clip):
    """Dense multiply-accumulates of convolutions and linear layers per sample."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(clip)
    return total / clip.shape[1]


@pytest.mark.parametrize("make", [SEWResNet, ResNet])
def test_size_of_resnet_18(make):
    network = make(7).eval()
    assert sum(p.numel() for p in network.parameters()) == 11_180_103
    assert convolution_macs(network, torch.zeros(1, 1, 3, 90, 90)) / 1e9 == pytest.approx(0.324, abs=0.001)


@pytest.mark.parametrize("make", [SEWResNet, ResNet])
def test_size_of_resnet_34(make):
    # torchvision's resnet34 has 21,797,672 parameters with 1000 classes: 990 fewer classes of 513 weights here.
    assert sum(p.numel() for p in make(10, depth=34).parameters()) == 21_797_672 - 990 * 513


def test_element_wise_functions():
    a, s = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    assert join(a, s, "add").tolist() == [0, 1, 1, 2]
    assert join(a, s, "and").tolist() == [0, 0, 0, 1]
    assert join(a, s, "iand").tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("function", ["add", "iand"])
def test_block_outputs_are_integers_and_not_dead(function):
    torch.manual_seed(0)
    network = SEWResNet(7, width=0.25, function=function)
    out = network(torch.randn(4, 2, 3, 48, 48))
    # A stage's first neuron sums a shortcut and two blocks: at most 3 spikes with `add`, 1 with `iand`.
    for name, most in (("stem", 1), ("layer1", 3), ("layer4", 3)):
        feature = out.features[name]
        assert torch.equal(feature, feature.round())
        assert feature.min() == 0
        assert 1 <= feature.max() <= (most if function == "add" else 1)
        assert 0.02 < feature.mean() < 1.5, name
    assert out.logits.shape == (4, 2, 7)
    assert out.features["pooled"].shape == (4, 2, 128)
    assert torch.allclose(network.readout(out.logits), network.fc(out.features["pooled"].mean(0)), atol=1e-6)


def test_stem_sees_every_step():
    torch.manual_seed(0)
    network = SEWResNet(3, width=0.125).eval()
    clip = torch.randn(3, 1, 3, 48, 48) * 3
    changed = clip.clone()
    changed[2] = -changed[2]
    first, second = network(clip).features["stem"], network(changed).features["stem"]
    assert torch.equal(first[:2], second[:2])  # causal
    assert not torch.equal(first[2], second[2])


def test_frames_do_not_mix_in_the_ordinary_resnet():
    torch.manual_seed(0)
    network = ResNet(4, width=0.125, channels=1).eval()
    clip = torch.randn(3, 2, 1, 32, 32)
    whole, alone = network(clip), network(clip[1:2])
    assert torch.allclose(whole.logits[1:2], alone.logits, atol=1e-5)
    assert whole.features["layer2"].shape == (3, 2, 16, 4, 4)
    assert {"conv1.weight", "layer2.0.downsample.1.running_mean", "fc.bias"} <= set(network.state_dict())
