import pytest
import torch
from network_checks import check_network, parameters

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks.blocks import make_neuron
from sdsnn_lightning.networks.resnet import ResNet
from sdsnn_lightning.networks.sew_resnet import SEWResNet
from sdsnn_lightning.neurons import PLIF, Leaky, SpatialLeaky

# torchvision's documentation lists these for its resnets at 3 channels and 1000 classes.
SIZES = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032}


@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("make", [SEWResNet, ResNet])
def test_sizes_are_those_of_imagenet(make, depth):
    assert parameters(make(1000, depth=depth)) == SIZES[depth]


@pytest.mark.parametrize("neuron", ["leaky", "lif", "plif", "if"])
def test_sew_resnet_on_events_with_every_neuron(neuron):
    torch.manual_seed(0)
    network = SEWResNet(5, channels=2, width=0.125, neuron=neuron, modality="events")
    assert network.inputs == ("events",)
    assert SEWResNet.inputs == ("frames",)
    check_network(network, torch.randn(3, 2, 2, 32, 32) * 2, 5, features=["stem", "layer1", "layer4", "pooled"])


def test_sew_resnet_50_and_ranges():
    torch.manual_seed(0)
    network = SEWResNet(5, channels=2, width=0.125, depth=50, stem="small")
    output = check_network(network, torch.randn(2, 2, 2, 16, 16), 5)
    assert output.features["stem"].shape[-1] == 16
    assert output.features["layer4"].shape == (2, 2, 4 * 64, 2, 2)
    assert network.width_out == 256
    for name, blocks in zip(("layer1", "layer2", "layer3", "layer4"), (3, 4, 6, 3), strict=True):
        feature = output.features[name]
        assert torch.equal(feature, feature.round())
        assert feature.min() >= 0
        assert 1 <= feature.max() <= blocks + 1  # one spike of the shortcut's neuron and one a block


@pytest.mark.parametrize("function", ["and", "iand"])
def test_and_and_iand_stay_binary(function):
    torch.manual_seed(0)
    network = SEWResNet(5, channels=2, width=0.125, function=function, start_as_identity=function == "and")
    output = check_network(network, torch.randn(3, 2, 2, 32, 32) * 2, 5)
    for name in ("stem", "layer1", "layer2", "layer3", "layer4"):
        assert set(output.features[name].unique().tolist()) == {0.0, 1.0}, name


@pytest.mark.parametrize("function", ["add", "iand"])
def test_a_block_that_starts_as_identity_is_its_shortcut(function):
    network = SEWResNet(5, channels=2, width=0.125, function=function, start_as_identity=True)
    spikes = (torch.rand(2, 2, 8, 6, 6) < 0.3).float()
    assert torch.equal(network.layer1[0](spikes), spikes)


def test_and_begins_as_identity_where_its_neurons_reach_the_threshold():
    # The batch norm's bias of 1 is exactly the threshold: an integrate-and-fire neuron fires at every step.
    network = SEWResNet(5, channels=2, width=0.125, function="and", neuron="if", start_as_identity=True)
    spikes = (torch.rand(2, 2, 8, 6, 6) < 0.3).float()
    assert torch.equal(network.layer1[0](spikes), spikes)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("frames", ["each", "mean"])
def test_resnet_as_a_teacher(frames, depth):
    torch.manual_seed(0)
    network = ResNet(5, channels=2, width=0.125, depth=depth, frames=frames, modality="events", stem="small")
    clip = torch.randn(3, 2, 2, 16, 16)
    output = check_network(network, clip, 5, spiking=False, timed=frames == "each")
    if frames == "mean":
        mean = network(clip.mean(0, keepdim=True))
        assert torch.equal(mean.logits, network(clip).logits)
        assert output.features["layer4"].shape == (2, network.width_out, 2, 2)
        assert torch.equal(network.readout(mean.logits), mean.logits)


def test_kinds_of_neurons():
    assert type(make_neuron("leaky", 0.9)) is Leaky
    assert make_neuron("leaky", 0.9).beta.item() == pytest.approx(0.9)
    assert make_neuron("if", 0.9).beta.item() == 1
    lif, plif = make_neuron("lif", 0.75), make_neuron("plif", 0.75)
    assert type(lif) is type(plif) is PLIF
    assert lif.tau.item() == pytest.approx(4)
    assert [len(list(n.parameters())) for n in (lif, plif)] == [0, 1]
    assert type(make_neuron("if", temporal_gradient=False)) is SpatialLeaky
    # Integrate and fire counts up to its threshold and fires when it is there: 0.5 + 0.5 = 1.
    assert make_neuron("if")(torch.full((4, 1, 1), 0.5)).flatten().tolist() == [0, 1, 0, 1]
    with pytest.raises(ConfigError, match=r"beta is 1\.0; neuron: plif"):
        make_neuron("plif", 1.0)
    with pytest.raises(ConfigError, match="neuron: alif is unknown"):
        make_neuron("alif")


def test_without_gradient_through_time_a_step_learns_alone():
    torch.manual_seed(0)
    options = dict(channels=2, width=0.125, neuron="plif", stem="small")
    networks = [SEWResNet(4, **options, temporal_gradient=flag).eval() for flag in (True, False)]
    networks[1].load_state_dict(networks[0].state_dict())
    clip = torch.randn(3, 2, 2, 12, 12) * 3
    grads = []
    for network in networks:
        events = clip.clone().requires_grad_()
        output = network(events)
        output.logits[2].square().sum().backward()
        grads.append((output.logits, events.grad))
    assert torch.equal(grads[0][0], grads[1][0])  # the same spikes
    assert grads[0][1][:2].abs().max() > 0
    assert grads[1][1][:2].abs().max() == 0
    assert grads[1][1][2].abs().max() > 0
