import pytest
import torch
from network_checks import check_network, parameters

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks.dvs_sew import SEWDVS, SEWDVSTwin
from sdsnn_lightning.neurons import PLIF


def test_published_sizes():
    network, twin = SEWDVS(10), SEWDVSTwin(10)
    assert parameters(network) == 1_192_218
    assert parameters(twin) == 1_192_202
    assert sum(isinstance(m, PLIF) for m in network.modules()) == 16
    assert network.fc.in_features == 128  # 128 pixels halved seven times
    # By hand: 8 convolutions of 64 and 6 of 128 channels, both 1x1, all batch norms, the classifier, a tau each.
    convs = 8 * 9 * 64**2 + 6 * 9 * 128**2 + 2 * 64 + 64 * 128
    norms = 2 * (9 * 64 + 7 * 128)
    assert parameters(network) == convs + norms + 128 * 10 + 10 + 16


@pytest.mark.parametrize(("size", "flat"), [(128, 1), (64, 1), (48, 1), (32, 1), (255, 1), (256, 4)])
def test_any_size(size, flat):
    network = SEWDVS(3, size=size, width=0.125)
    with torch.no_grad():
        output = network.eval()(torch.zeros(1, 1, 2, size, size))
    assert output.features["pooled"].shape == (1, 1, 16 * flat)
    assert output.features["block7"].shape[-1] == max(1, size // 64)


def test_contract_and_taps():
    torch.manual_seed(0)
    network = SEWDVS(5, size=32, width=0.25)
    names = ["up1", "block1", "block2", "block3", "block4", "up2", "block5", "block6", "block7", "pooled"]
    output = check_network(network, torch.randn(3, 2, 2, 32, 32) * 4, 5)
    assert list(output.features) == names
    assert [output.features[f"block{i}"].shape[-1] for i in range(1, 8)] == [32, 16, 8, 4, 2, 1, 1]
    # Logits are linear in the pooled feature: their mean is the published classifier on the mean.
    mean = network.fc(output.features["pooled"].mean(0))
    assert torch.allclose(network.readout(output.logits), mean, atol=1e-6)


def test_add_counts_spikes_and_the_others_stay_binary():
    torch.manual_seed(0)
    events = torch.randn(4, 2, 2, 32, 32) * 4
    output = SEWDVS(5, size=32, width=0.5)(events)
    # A block adds one spike to what came in; each 1x1 convolution's neurons start again with one.
    for names, first in ((("up1", "block1", "block2", "block3", "block4"), 1), (("up2", "block5", "block6"), 1)):
        for most, name in enumerate(names, first):
            feature = output.features[name]
            assert torch.equal(feature, feature.round())
            assert feature.min() >= 0
            assert feature.max() <= most
    assert output.features["block2"].max() == 3  # and it is reached
    for function in ("and", "iand"):
        features = SEWDVS(5, size=32, width=0.5, function=function)(events).features
        assert set(features["up1"].unique().tolist()) == {0.0, 1.0}
        for i in range(1, 8):
            assert set(features[f"block{i}"].unique().tolist()) <= {0.0, 1.0}
    assert features["block4"].max() == 1


@pytest.mark.parametrize("frames", ["each", "mean"])
def test_twin_as_a_teacher(frames):
    torch.manual_seed(0)
    network = SEWDVSTwin(5, size=16, width=0.25, frames=frames)
    clip = torch.randn(3, 2, 2, 16, 16)
    output = check_network(network, clip, 5, spiking=False, timed=frames == "each")
    assert (
        output.features["up1"].min() < 0 <= (output.features["block1"] - output.features["up1"]).min()
    )  # no ReLU, ReLU
    if frames == "mean":
        assert torch.equal(network(clip).logits, network(clip.mean(0, keepdim=True)).logits)


def test_same_weights_fit_both():
    spiking, twin = SEWDVS(5, size=16, width=0.25), SEWDVSTwin(5, size=16, width=0.25)
    assert {k for k in spiking.state_dict() if ".lif." not in k} == set(twin.state_dict())
    assert twin.inputs == spiking.inputs == ("events",)
    assert SEWDVS(5, size=16, width=0.25, modality="frames").inputs == ("frames",)


def official_state():
    """Random weights under the authors' names: the layers' places in their list, as BKDSNN's taps are numbered."""
    state = {"out.weight": torch.randn(10, 128), "out.bias": torch.randn(10)}

    def add(prefix, channels_in, channels, kernel):
        state[f"{prefix}.0.module.0.weight"] = torch.randn(channels, channels_in, kernel, kernel)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"{prefix}.0.module.1.{leaf}"] = torch.rand(channels)
        state[f"{prefix}.0.module.1.num_batches_tracked"] = torch.tensor(3)
        state[f"{prefix}.1.w"] = torch.randn(())

    add("conv.0", 2, 64, 1)
    add("conv.9", 64, 128, 1)
    for places, channels in (((1, 3, 5, 7), 64), ((10, 12, 14), 128)):
        for place in places:
            for i in range(2):
                add(f"conv.{place}.conv.{i}", channels, channels, 3)
    return state


def test_official_weights_fit():
    state = official_state()
    learnt = ("weight", "bias", ".w")
    assert sum(v.numel() for k, v in state.items() if k.endswith(learnt)) == 1_192_218
    network = SEWDVS(10)
    network.load_official({f"module.{k}": v for k, v in state.items()})
    assert torch.equal(network.up2.conv.weight, state["conv.9.0.module.0.weight"])
    assert torch.equal(network.block7.layer2.lif.w, state["conv.14.conv.1.1.w"])
    assert torch.equal(network.block2.layer1.bn.running_var, state["conv.3.conv.0.0.module.1.running_var"])
    del state["conv.9.1.w"]
    with pytest.raises(RuntimeError, match=r"up2\.lif\.w"):
        network.load_official(state)


def test_wrong_size_is_refused():
    with pytest.raises(ConfigError, match="size is 0"):
        SEWDVS(5, size=0)
