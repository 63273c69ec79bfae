"""NIR graphs: the discretisation by hand, spikes read back by nirtorch and by snnTorch, and what is refused."""

import nir
import numpy as np
import pytest
import torch
from nets import SpikingToy, TinyConv, awake
from snntorch.import_nir import import_from_nir
from torch import nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.exports.nir_graph import save_nir, to_nir
from sdsnn_lightning.exports.nir_read import compare_nir
from sdsnn_lightning.exports.program import example_inputs
from sdsnn_lightning.networks import PlainStudent, SEWResNet, SEWStudent, SingleEyeStudent, SpikeSCR, SpikingKeyword


@pytest.fixture(scope="module")
def toy():
    torch.manual_seed(0)
    inputs = example_inputs({"x": (30, 6)}, ("x",))
    return awake(SpikingToy(3), *inputs), inputs


def test_the_neuron_and_the_folded_norm_by_hand(toy):
    network, inputs = toy
    graph = to_nir(network, (inputs[0][0],), 12.5)
    assert set(graph.nodes) == {"input", "hidden", "lif", "head", "output"}
    assert sorted(graph.edges) == [("head", "output"), ("hidden", "lif"), ("input", "hidden"), ("lif", "head")]
    lif = graph.nodes["lif"]
    assert isinstance(lif, nir.LIF)
    np.testing.assert_allclose(lif.tau, np.full(12, 5e-4), rtol=1e-6)  # dt / (1 - 0.8)
    np.testing.assert_allclose(lif.r, np.full(12, 5.0), rtol=1e-6)  # 1 / (1 - 0.8)
    assert (lif.v_threshold == 0.5).all()
    assert (lif.v_reset == 0).all()
    norm, layer = network.norm, network.hidden
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    np.testing.assert_allclose(graph.nodes["hidden"].weight, (layer.weight * scale[:, None]).detach(), rtol=1e-5)
    shift = ((layer.bias - norm.running_mean) * scale + norm.bias).detach()
    np.testing.assert_allclose(graph.nodes["hidden"].bias, shift, rtol=1e-4, atol=1e-6)
    assert graph.metadata["dt"] == 1e-4
    assert graph.metadata["time_step_ms"] == 12.5


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda: TinyConv(3), {"frames": (8, 2, 8, 8)}),
        (lambda: PlainStudent(7, width=0.25), {"frames": (4, 3, 64, 64)}),
        (lambda: SEWResNet(7, width=0.125, stem="small", neuron="plif"), {"frames": (4, 3, 16, 16)}),
    ],
)
def test_read_back_by_nirtorch_every_spike_is_the_same(make, shapes, tmp_path):
    torch.manual_seed(1)
    network = make()
    inputs = example_inputs(shapes, network.inputs)
    awake(network, *inputs)
    card = save_nir(network, inputs, tmp_path / "network.nir", None)
    assert card["compared"]["spikes"] > 300
    assert card["compared"]["differ"] == 0
    assert card["compared"]["different"] < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["network.nir"]


def test_read_by_snntorch_the_spikes_are_the_same(toy, tmp_path):
    network, (x,) = toy
    save_nir(network, (x,), tmp_path / "network.nir", None)
    read = import_from_nir(nir.read(tmp_path / "network.nir"))
    seen = []
    read.lif.register_forward_hook(lambda module, args, out: seen.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        logits = torch.stack([read(frame[:1])[0] for frame in x])
        whole = network(x[:, :1])
    spikes = torch.stack(seen)
    assert int(spikes.sum()) > 30
    assert torch.equal(spikes, whole.features["hidden"])
    torch.testing.assert_close(logits, whole.logits, atol=1e-4, rtol=1e-4)


def test_a_wrong_graph_is_noticed(toy, tmp_path):
    network, inputs = toy
    graph = to_nir(network, (inputs[0][0],))
    graph.nodes["lif"].v_threshold *= 1.2
    nir.write(tmp_path / "wrong.nir", graph)
    with pytest.raises(ConfigError, match="spikes of lif differ"):
        compare_nir(network, tmp_path / "wrong.nir", inputs[0])


@pytest.mark.parametrize(
    ("make", "shapes", "said"),
    [
        (lambda: TinyConv(3, reset="subtract"), {"frames": (4, 2, 8, 8)}, "reset by subtraction of lif1; no reset by"),
        (lambda: TinyConv(3, pool=nn.MaxPool2d(2)), {"frames": (4, 2, 8, 8)}, r"MaxPool2d \(pool\)"),
        (lambda: PlainStudent(7, width=0.25), {"frames": (4, 3, 48, 48)}, r"AdaptiveAvgPool2d from \(6, 6\) to"),
        (lambda: SEWStudent(7, width=0.125), {"frames": (4, 3, 48, 48)}, r"MaxPool2d \(pool\)"),
        (lambda: SingleEyeStudent(7, 48, width=0.25), {"frames": (4, 3, 48, 48)}, r"ReLU \(stack.gates.0.3\)"),
        (lambda: SpikingKeyword(5, hidden=8), {"audio": (8, 40)}, r"Conv1d \(convs.0\)"),
        (
            lambda: SpikeSCR(5, in_channels=40, width=32, heads=2, modality="audio", masked=False),
            {"audio": (8, 40)},
            "SpikeSCR cannot be a NIR graph",
        ),
    ],
)
def test_what_nir_lacks_is_named(make, shapes, said, tmp_path):
    network = make()
    with pytest.raises(ConfigError, match=said) as refused:
        save_nir(network, example_inputs(shapes, network.inputs), tmp_path / "network.nir", None)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())
