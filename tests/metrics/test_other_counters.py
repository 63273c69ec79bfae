"""Agreement with other people's counters on the same networks, where these happen to be installed.

pip install --no-deps --target /tmp/sj spikingjelly==2.0.0 loguru
PYTHONPATH=/tmp/sj pytest tests/metrics/test_other_counters.py
pip install --no-deps --target /tmp/syops syops==0.0.5 progress spikingjelly==0.0.0.0.12
PYTHONPATH=/tmp/syops pytest tests/metrics/test_other_counters.py
"""

import io

import pytest
import snntorch
import torch
from counted import Net
from torch import nn

from sdsnn_lightning.metrics.energy import E_AC, E_MAC, measure_energy

try:
    from spikingjelly.activation_based import op_counter
except ImportError:
    op_counter = None
try:
    import syops
except ImportError:
    syops = None

needs_spikingjelly = pytest.mark.skipif(op_counter is None, reason="spikingjelly 2.0 is not installed")
needs_syops = pytest.mark.skipif(syops is None, reason="syops is not installed")


class Borrowed(snntorch.Leaky):
    """Neurons of SpikingJelly inside one of snnTorch's: one network that both counters understand."""

    def __init__(self, node):
        super().__init__(beta=0.5)
        self.node = node

    def forward(self, current):
        return self.node(current)


def folded(layer, x):
    """A stateless layer on `[T, B, ...]`."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def spikes(*shape, rate=0.2):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(0)) < rate).float()


def spiking_network(node, bias=True):
    torch.manual_seed(0)
    layers = {
        "conv": nn.Conv2d(2, 4, 3, padding=1, bias=bias),
        "neuron": Borrowed(node()),
        "fc": nn.Linear(4 * 36, 7, bias=bias),
        "neuron2": Borrowed(node()),
        "head": nn.Linear(7, 3, bias=bias),
    }

    def run(net, x):  # [T, B, 2, 6, 6]
        hidden = net.neuron2(folded(net.fc, net.neuron(folded(net.conv, x)).flatten(2)))
        return folded(net.head, hidden)

    return Net(run, **layers).eval()


def multi_step_node(kind):
    from spikingjelly.activation_based import neuron

    def make():
        return getattr(neuron, kind)(step_mode="m", v_threshold=0.1)

    return make


def reset(network):
    from spikingjelly.activation_based import functional

    functional.reset_net(network)


def synops(network, *inputs):
    """SynOps of the whole batch by SpikingJelly and by us."""
    counter = op_counter.SynOpCounter()
    with torch.no_grad(), op_counter.DispatchCounterMode([counter]):
        network(*inputs)
    report = measure_energy(network, inputs)
    return counter.get_total(), report.totals["synops"] * inputs[0].shape[1]


@needs_spikingjelly
def test_synops_of_linear_layers_are_those_of_spikingjelly():
    network = Net(lambda net, x: net.fc(x), fc=nn.Linear(30, 11, bias=False))
    theirs, ours = synops(network, spikes(5, 4, 30))
    assert theirs > 0
    assert ours == pytest.approx(theirs, rel=1e-12)


@needs_spikingjelly
def test_synops_of_attention_with_real_values_are_those_of_spikingjelly():
    values = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(1))  # [B, T, D]
    network = Net(lambda net, x: (x.transpose(0, 1).transpose(1, 2) @ values).transpose(0, 1))
    theirs, ours = synops(network, spikes(5, 4, 8))
    assert ours == pytest.approx(theirs, rel=1e-12)


@needs_spikingjelly
def test_synops_of_convolutions_differ_by_the_border_only():
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    network = Net(lambda net, x: folded(net.conv, x).flatten(2), conv=conv)
    inner = spikes(2, 3, 3, 12, 12)
    inner[..., (0, -1), :] = inner[..., :, (0, -1)] = 0
    theirs, ours = synops(network, inner)
    assert ours == pytest.approx(theirs, rel=1e-12)
    theirs, ours = synops(network, spikes(2, 3, 3, 12, 12))  # a spike at the border meets fewer taps
    assert theirs < ours < 1.15 * theirs


@needs_spikingjelly
@pytest.mark.parametrize("kind", ["IFNode", "LIFNode"])
def test_lemaire_is_that_of_spikingjelly(kind):
    network = spiking_network(multi_step_node(kind))
    if kind == "IFNode":
        network.neuron.beta, network.neuron2.beta = torch.tensor(1.0), torch.tensor(1.0)
    x = spikes(4, 1, 2, 6, 6)

    class Theirs(nn.Module):  # layers of SpikingJelly that say how many steps they fold
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x).logits

    for layer in (network.conv, network.fc, network.head):
        layer.step_mode = "s"
    config = op_counter.LemaireEnergyConfig(strict=False)
    theirs = op_counter.estimate_lemaire_energy(Theirs(), x, config=config)
    reset(network)
    ours = measure_energy(network, (x,))
    assert ours.rows[2].rate > 0
    # They take the potentials of folded steps for one large memory, we for one step's: theirs with ours in place.
    potentials = {"conv": 4 * 36, "fc": 7, "head": 3}
    extra = 0.0
    for row in ours.rows:
        if row.name in potentials:
            touched = row.events * row.fanout
            extra += 2 * touched * 10 / 2048 * (4 - 1) * potentials[row.name]
    assert ours.totals["energy_lemaire_J"] * 1e12 + extra == pytest.approx(theirs.total_pj, rel=1e-9)


@needs_spikingjelly
def test_lemaire_without_spikes_is_that_of_spikingjelly():
    torch.manual_seed(0)
    layers = {"conv": nn.Conv2d(2, 4, 3, padding=1, stride=2), "fc": nn.Linear(36, 3)}
    network = Net(lambda net, x: net.fc(net.conv(x[0]).flatten(1)), **layers).eval()
    x = torch.rand(1, 1, 2, 6, 6) + 0.1
    theirs = op_counter.estimate_lemaire_energy(network, x, config=op_counter.LemaireEnergyConfig(strict=False))
    assert measure_energy(network, (x,)).totals["energy_lemaire_J"] * 1e12 == pytest.approx(theirs.total_pj, rel=1e-9)


@needs_syops
@pytest.mark.parametrize("batches", [1, 3])
def test_syops_is_what_syops_counter_charges(batches):
    from spikingjelly.clock_driven import functional, neuron

    from sdsnn_lightning.metrics.energy import EnergyScore

    torch.manual_seed(0)
    layers = {
        "stem": nn.Conv2d(3, 4, 3, padding=1),
        "norm": nn.BatchNorm2d(4),
        "neuron": Borrowed(neuron.MultiStepLIFNode(v_threshold=0.1)),
        "grouped": nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, bias=False),
        "up": nn.ConvTranspose2d(8, 4, 2, stride=2),
        "relu": nn.ReLU(),
        "pool": nn.MaxPool2d(2),
        "average": nn.AdaptiveAvgPool2d(1),
        "second": Borrowed(neuron.MultiStepLIFNode(v_threshold=1e-4)),
        "fc": nn.Linear(4, 6),
        "integers": nn.Linear(4, 5),  # reads sums of spikes
    }

    def run(net, x):  # [T, B, 3, 8, 8]
        h = net.neuron(folded(net.norm, folded(net.stem, x)))
        pooled = folded(net.pool, h)
        h = folded(net.relu, folded(net.up, folded(net.grouped, h)))
        h = net.second(folded(net.average, folded(net.pool, h)).flatten(2))
        scores = h @ h.transpose(1, 2)  # not seen by syops-counter
        return torch.cat([net.fc(h), net.integers(pooled.flatten(2)[..., :4] + h), scores.mean(-1, keepdim=True)], -1)

    network = Net(run, **layers).eval()
    data = [torch.rand(4, 2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(batches)]

    class BatchFirst(nn.Module):  # syops-counter takes the first axis for the batch
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x.transpose(0, 1)).logits

    loader = [(x.transpose(0, 1), None) for x in data]
    (_, acs, macs, _), _ = syops.get_model_complexity_info(
        BatchFirst(), (4, 3, 8, 8), loader, as_strings=False, print_per_layer_stat=False, ost=io.StringIO()
    )
    score = EnergyScore(network)
    with score.watch(), torch.no_grad():
        for x in data:
            functional.reset_net(network)
            network(x)
    report = score.compute()
    assert {row.kind for row in report.rows} >= {"analogue", "binary", "integer"}
    assert sum(row.stock_acs for row in report.rows) == pytest.approx(acs, rel=1e-9)
    assert sum(row.stock_macs for row in report.rows) == pytest.approx(macs, rel=1e-9)
    assert report.totals["energy_syops_J"] == pytest.approx(macs * E_MAC + acs * E_AC, rel=1e-9, abs=0)
