import pytest
import torch
from network_checks import check_network, parameters

from sdsnn_lightning.networks.spiking_resnet import SpikingResNet


def test_sizes():
    # Spiking neurons have no parameters: the ordinary networks' sizes, from torchvision's documentation.
    assert parameters(SpikingResNet(1000, 3)) == 11_689_512
    assert parameters(SpikingResNet(1000, 3, depth=34)) == 21_797_672

    def block(channels_in, channels):
        shortcut = channels_in * channels + 2 * channels if channels_in != channels else 0
        return 9 * channels * (channels_in + channels) + 4 * channels + shortcut

    stages = block(64, 128) + 2 * block(128, 128) + block(128, 256) + 2 * block(256, 256)
    stages += block(256, 512) + block(512, 512)
    by_hand = 9 * 3 * 64 + 2 * 64 + stages + 512 * 256 + 256 + 256 * 10 + 10
    assert parameters(SpikingResNet(10, 3, depth=19)) == by_hand == 12_630_858  # 12.63 M in the papers


@pytest.mark.parametrize("depth", [18, 19, 34])
@pytest.mark.parametrize("neuron", ["leaky", "plif"])
def test_contract(depth, neuron):
    torch.manual_seed(0)
    network = SpikingResNet(5, width=0.125, depth=depth, neuron=neuron)
    output = check_network(network, torch.randn(3, 2, 2, 48, 48) * 2, 5)
    last = "layer3" if depth == 19 else "layer4"
    names = ["stem", "layer1", "layer2", "layer3"] + [last] * (depth != 19) + ["pooled"] + ["hidden"] * (depth == 19)
    assert list(output.features) == names
    for name in names:
        if name != "pooled":
            assert set(output.features[name].unique().tolist()) == {0.0, 1.0}, name
    sides = [output.features[name].shape[-1] for name in ("stem", "layer1", last)]
    assert sides == ([48, 48, 12] if depth == 19 else [24, 12, 2])
    assert network.inputs == ("events",)


def test_shortcut_carries_current():
    # Two currents of 0.6, one by each way, make the block's neuron fire; neither would alone.
    network = SpikingResNet(3, width=0.125, stem="small")
    block = network.layer2[0].eval()
    for norm in (block.layer2.bn, block.shortcut[1]):
        torch.nn.init.zeros_(norm.weight)
        torch.nn.init.constant_(norm.bias, 0.6)
    spikes = torch.ones(1, 1, 8, 4, 4)
    assert block(spikes).min() == 1
    torch.nn.init.zeros_(block.shortcut[1].bias)
    assert block(spikes).max() == 0


def test_stem_may_be_chosen():
    clip = torch.randn(1, 1, 2, 32, 32)
    assert SpikingResNet(3, width=0.125, stem="small")(clip).features["layer4"].shape[-1] == 4
    assert SpikingResNet(3, width=0.125, depth=19, stem="imagenet")(clip).features["layer3"].shape[-1] == 2
