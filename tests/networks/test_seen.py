import numpy as np
import pytest
import torch
from torch import nn

from sdsnn_lightning.networks.seen import OFFICIAL_NAMES, SEEN
from sdsnn_lightning.types import Network


def dense_macs(network, *inputs):
    """Multiply-accumulates of convolutions and linear layers met as modules or as functions, per sample."""
    total = 0

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal total
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.convolution.default:
                total += out.numel() * args[1][0].numel()
            elif func is torch.ops.aten.addmm.default:
                total += out.numel() * args[1].shape[1]
            elif func is torch.ops.aten.mm.default:
                total += out.numel() * args[0].shape[1]
            return out

    with torch.no_grad(), Count():
        network(*inputs)
    return total / inputs[0].shape[1]


def test_parameters_and_shapes_are_the_papers():
    network = SEEN(7).eval()
    assert sum(p.numel() for p in network.parameters()) == 6_078_655
    assert isinstance(network, Network)
    out = network(torch.zeros(4, 2, 3, 90, 90), torch.zeros(4, 2, 3, 90, 90))
    assert out.logits.shape == (4, 2, 7)
    assert network.readout(out.logits).shape == (2, 7)
    shapes = {name: tuple(feature.shape[2:]) for name, feature in out.features.items()}
    assert shapes == {
        "spikes1": (64, 45, 45),
        "spikes2": (256, 23, 23),
        "spikes3": (512, 6, 6),
        "frame_spikes": (18432,),
        "hidden": (256,),
    }


@pytest.mark.parametrize(("steps", "giga"), [(4, 0.907), (7, 1.454), (13, 2.548)])
def test_dense_operations_are_the_papers_flops(steps, giga):
    clip = torch.zeros(steps, 1, 3, 90, 90)
    assert dense_macs(SEEN(7).eval(), clip, clip) / 1e9 == pytest.approx(giga, abs=0.001)


@pytest.mark.parametrize("size", [32, 47, 48, 64, 90])
def test_any_size_fits(size):
    clip = torch.zeros(2, 1, 3, size, size)
    assert SEEN(5, size=size).eval()(clip, clip).logits.shape == (2, 1, 5)


def seeded():
    """A network with strong enough weights to fire, and a clip, both the same everywhere."""
    draw = np.random.RandomState(0)
    network = SEEN(7, size=48, channels=1).double()
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 400
            parameter.copy_(torch.from_numpy(draw.randn(*parameter.shape)) * fan_in**-0.5)
    return network, torch.from_numpy(draw.randn(3, 2, 1, 48, 48)), torch.from_numpy(draw.randn(3, 2, 1, 48, 48))


def test_same_numbers_as_when_compared_with_the_authors_code():
    network, frames, events = seeded()
    out = network(frames, events)
    readout = network.readout(out.logits)
    torch.nn.functional.cross_entropy(readout, torch.tensor([2, 5])).backward()
    assert readout[0].tolist() == pytest.approx(
        [0.0985873, 0.1408785, 0.6095682, 0.0214544, -1.4084295, -0.4737989, -1.0999405], abs=1e-6
    )
    gradients = {name: parameter.grad.norm().item() for name, parameter in network.named_parameters()}
    assert gradients["conv0.weight"] == pytest.approx(0.0510794, rel=1e-5)
    assert gradients["stack.branches.1.weight"] == pytest.approx(0.3625966, rel=1e-5)
    assert gradients["stack.gates.2.4.weight"] == pytest.approx(0.0004425508, rel=1e-5)
    assert gradients["stack.conv3.weight"] == pytest.approx(5.6401496, rel=1e-5)
    assert gradients["fc1.weight"] == pytest.approx(16.911101, rel=1e-5)


def test_events_give_no_gradient_to_convolutions():
    network, frames, events = seeded()
    network.lif_frame = Silent()  # cuts the frame path: what is left can only come from events
    events.requires_grad_(True)
    out = network(frames, events)
    assert all(out.features[f"spikes{i}"].mean() > 0.02 for i in (1, 2, 3))
    network.readout(out.logits).square().sum().backward()
    assert events.grad is None
    learning = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learning == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}


class Silent(nn.Module):
    def forward(self, current):
        return torch.zeros_like(current)


def test_convolutions_learn_through_the_frame_path():
    network, frames, events = seeded()
    network.readout(network(frames, events).logits).square().sum().backward()
    for module in ("conv0", "stack.conv1", "stack.conv2", "stack.conv3", "stack.gates.0.4", "stack.branches.2"):
        assert network.get_submodule(module).weight.grad.abs().sum() > 0, module


def test_middle_frames_and_event_biases_do_not_matter():
    network, frames, events = seeded()
    network.eval()
    first = network(frames, events).features
    changed = frames.clone()
    changed[1] = 7.0
    with torch.no_grad():
        for name in ("conv2", "conv3"):
            network.stack.get_submodule(name).bias.add_(0.5)
    second = network(changed, events).features
    for name in ("spikes1", "spikes2", "spikes3"):
        assert torch.equal(first[name], second[name])
    assert not torch.equal(first["frame_spikes"], second["frame_spikes"])


def test_loads_the_authors_state_dict():
    source, target = SEEN(7, size=48), SEEN(7, size=48)
    official = {}
    for key, value in source.state_dict().items():
        for theirs, ours in OFFICIAL_NAMES.items():
            key = key.replace(f"{ours}.", f"{theirs}.", 1) if key.startswith(f"{ours}.") else key
        if not key.startswith("lif"):
            official[f"module.{key}"] = value
    assert "module.conv1_f4.weight" in official
    assert "module.mlp_f2.4.bias" in official
    target.load_official(official)
    for key, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[key]), key
    official.pop("module.fc2.bias")
    with pytest.raises(RuntimeError, match=r"fc2\.bias"):
        target.load_official(official)
