import pytest
import torch
from network_checks import check_network, parameters

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks.vgg_snn import VGGSNN, delayed


def test_sizes_by_hand():
    def layers(*channels):
        return sum(9 * a * b + b + 2 * b for a, b in zip(channels, channels[1:], strict=False))

    tet = layers(2, 64, 128, 256, 256, 512, 512, 512, 512)
    assert parameters(VGGSNN(10)) == tet + 512 * 3 * 3 * 10 + 10 == 9_271_498
    assert parameters(VGGSNN(10, form="dsr", size=128)) == tet + 512 * 7 * 7 * 10 + 10 == 9_476_298


@pytest.mark.parametrize(("form", "side"), [("tet", 4), ("dsr", 2)])
@pytest.mark.parametrize("neuron", ["leaky", "if"])
def test_contract(form, side, neuron):
    torch.manual_seed(0)
    network = VGGSNN(5, size=32, width=0.125, form=form, neuron=neuron, dropout=0.1)
    output = check_network(network, torch.randn(3, 2, 2, 32, 32) * 2, 5)
    assert list(output.features) == [f"conv{i}" for i in range(1, 9)] + ["pooled"]
    for i in range(1, 9):
        assert set(output.features[f"conv{i}"].unique().tolist()) == {0.0, 1.0}
    assert output.features["conv8"].shape == (3, 2, 64, side, side)
    assert output.features["pooled"].shape == (3, 2, 64 * (4 if form == "tet" else 49))
    assert network.inputs == ("events",)


def test_delay_by_hand():
    spikes = torch.arange(1.0, 5.0).view(4, 1, 1)
    assert delayed(spikes, 0).flatten().tolist() == [1, 2, 3, 4]
    assert delayed(spikes, 1).flatten().tolist() == [0, 1, 2, 3]
    assert delayed(spikes, 3).flatten().tolist() == [0, 0, 0, 1]
    assert delayed(spikes, 7).flatten().tolist() == [0, 0, 0, 0]


def test_skips_keep_the_contract_and_carry_gradient():
    torch.manual_seed(0)
    skips = [("conv1", "conv4", 1), ("conv2", "conv4", 0), ("conv3", "conv8", 2)]
    network = VGGSNN(5, size=16, width=0.125, skips=skips)
    check_network(network, torch.randn(4, 2, 2, 16, 16) * 2, 5)
    assert parameters(network) - parameters(VGGSNN(5, size=16, width=0.125)) == 8 * 32 + 16 * 32 + 32 * 64
    for skip in network.skips.values():
        assert skip.conv.weight.grad.abs().max() > 0


def test_a_skip_arrives_its_delay_later():
    torch.manual_seed(0)
    network = VGGSNN(5, size=16, width=0.125, skips=[("conv1", "conv8", 2)]).eval()
    torch.nn.init.constant_(network.skips["conv1_conv8"].conv.weight, 5.0)
    for name in ("conv2", "conv8"):  # only the skip reaches the last layer
        torch.nn.init.zeros_(getattr(network, name).bn.weight)
    output = network(torch.randn(4, 2, 2, 16, 16) * 3)
    sent, arrived = output.features["conv1"], output.features["conv8"]
    assert sent.amax((1, 2, 3, 4)).tolist() == [1, 1, 1, 1]
    assert arrived.amax((1, 2, 3, 4)).tolist() == [0, 0, 1, 1]
    reached = torch.nn.functional.avg_pool2d(sent[0], 8).sum(1, keepdim=True) * 5 > 1
    assert torch.equal(arrived[2].bool(), reached.expand_as(arrived[2]))


def test_dropout_silences_neurons_for_the_whole_sample():
    torch.manual_seed(0)
    network = VGGSNN(5, size=16, width=0.125, dropout=0.5)
    seen = []
    network.conv2.conv.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    output = network(torch.randn(4, 2, 2, 16, 16) * 3)
    kept = seen[0].unflatten(0, (4, 2)) / 2
    silenced = (output.features["conv1"] - kept).amax(0)  # 1 where a spike was dropped at any step
    assert 0.1 < silenced.mean() < 0.6
    assert (kept * silenced).max() == 0  # and then at every step


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match=r"no layer 'conv9'; there are conv1, conv2"):
        VGGSNN(5, size=16, width=0.125, skips=[("conv1", "conv9", 1)])
    with pytest.raises(ConfigError, match="does not lead forward"):
        VGGSNN(5, size=16, width=0.125, skips=[("conv4", "conv2", 1)])
    with pytest.raises(ConfigError, match="has delay -1"):
        VGGSNN(5, size=16, width=0.125, skips=[("conv1", "conv2", -1)])
    with pytest.raises(ConfigError, match="conv1 to conv4 stands there twice"):
        VGGSNN(5, size=16, width=0.125, skips=[("conv1", "conv4", 1), ("conv1", "conv4", 2)])
    with pytest.raises(ConfigError, match="size is 16; 5 poolings of form: dsr need 32"):
        VGGSNN(5, size=16, form="dsr")
