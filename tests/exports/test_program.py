"""Streaming steps as programs: the same numbers frame by frame, for any batch, with nothing but torch installed."""

import subprocess
import sys

import pytest
import torch
from nets import Centred, SpikingToy, TinyConv, awake

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.exports.program import example_inputs, save_program
from sdsnn_lightning.exports.streaming import NetworkStep, stream
from sdsnn_lightning.networks import VGGSNN, SingleEyeStudent, SpikeSCR, SpikingKeyword
from sdsnn_lightning.networks.conversion import Converted
from sdsnn_lightning.neurons import PLIF, Leaky
from sdsnn_lightning.neurons.quantised import IntegrateAndFire
from sdsnn_lightning.types import Output

ALONE = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lightning", "pytorch_lightning", "wandb", "sdsnn_lightning", "snntorch"):
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Refuse())
import torch
folder, found = sys.argv[1], {}
for name, given in torch.load(f"{folder}/given.pt", weights_only=True).items():
    program = torch.export.load(f"{folder}/{name}.pt2").module()
    state, logits = tuple(given["state"]), []
    for t in range(len(given["inputs"][0])):
        out, state = program(*(x[t] for x in given["inputs"]), state)
        logits.append(out.detach())
    found[name] = torch.stack(logits)
torch.save(found, f"{folder}/out.pt")
"""

CASES = {
    "single-eye": (lambda: SingleEyeStudent(7, 32, width=0.25), {"frames": (4, 3, 32, 32)}),
    "conv": (lambda: TinyConv(3), {"frames": (6, 2, 8, 8)}),
    "keyword": (lambda: SpikingKeyword(5, hidden=24), {"audio": (40, 40)}),
    "converted": (lambda: Converted(3, TinyConv, 1.3), {"frames": (6, 2, 8, 8)}),
}


def test_the_programs_run_alone_and_equal_the_networks(tmp_path):
    wanted, given = {}, {}
    for name, (make, shapes) in CASES.items():
        torch.manual_seed(0)
        network = make()
        inputs = example_inputs(shapes, network.inputs)
        awake(network, *inputs)
        agreement, _, names = save_program(network, inputs, tmp_path / f"{name}.pt2")
        assert agreement.steps == len(inputs[0])
        assert agreement.spikes > 20
        assert agreement.different < 1e-4
        other = tuple(x[:, :1].repeat(1, 3, *[1] * (x.ndim - 2)) + 0.3 for x in inputs)  # another batch, other numbers
        state = stream(network).start(*(x[0] for x in other))
        assert len(names) == len(state)
        given[name] = {"inputs": list(other), "state": list(state)}
        with torch.no_grad():
            wanted[name] = network(*other).logits
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.pt2" for name in CASES}
    torch.save(given, tmp_path / "given.pt")
    words = [sys.executable, "-c", ALONE, str(tmp_path), *CASES]
    done = subprocess.run(words, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    for name in CASES:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-4, rtol=1e-4)


class One(torch.nn.Module):
    """One layer of neurons, whose spikes are the logits."""

    inputs = ("x",)

    def __init__(self, neuron):
        super().__init__()
        self.neuron = neuron

    def forward(self, x):
        return Output(self.neuron(x), {})


NEURONS = {
    f"{reset}-{delay}": lambda reset=reset, delay=delay: Leaky(0.9, 0.6, reset_mechanism=reset, reset_delay=delay)
    for reset in ("subtract", "zero", "none")
    for delay in (True, False)
} | {
    "graded": lambda: Leaky(0.9, 0.6, graded_spikes_factor=2.5),
    "plif": lambda: PLIF(3.0, 0.4),
    "lif without decay of the input": lambda: PLIF(3.0, 0.4, learn=False, decay_input=False),
    "converted": lambda: IntegrateAndFire(1.3),
}


@pytest.mark.parametrize("kind", NEURONS)
def test_every_neuron_steps_as_it_runs(kind):
    network = One(NEURONS[kind]())
    x = torch.randn(50, 2, 8, generator=torch.Generator().manual_seed(1)) + 0.3
    step = NetworkStep(network)
    state = step.start(x[0])
    found = []
    with torch.no_grad():
        for frame in x:
            spikes, state = step(frame, state)
            found.append(spikes)
        whole = network(x).logits
    assert 40 < int(whole.ne(0).sum()) < whole.numel()
    assert torch.equal(torch.stack(found), whole)


def test_a_network_that_looks_ahead_is_refused(tmp_path):
    inputs = example_inputs({"x": (4, 6)}, ("x",))
    with pytest.raises(ConfigError, match="Centred gives other logits frame by frame"):
        save_program(awake(Centred(3), *inputs), inputs, tmp_path / "step.pt2")
    silent = VGGSNN(3, size=16, width=0.125, skips=[("conv6", "conv8", 1)])  # no spike gets as far as the skip
    events = example_inputs({"events": (4, 2, 16, 16)}, ("events",))
    with pytest.raises(ConfigError, match="VGGSNN gives other logits frame by frame"):
        save_program(silent, events, tmp_path / "step.pt2")
    scr = SpikeSCR(5, in_channels=40, width=32, heads=2, modality="audio", masked=False)
    with pytest.raises(ConfigError, match="look at future frames; export its weights"):
        save_program(scr, example_inputs({"audio": (20, 40)}, ("audio",)), tmp_path / "step.pt2")
    assert not list(tmp_path.iterdir())


def test_what_cannot_stream_is_named():
    class Shared(SpikingToy):
        def forward(self, x):
            return Output(self.head(self.lif(self.lif(self.hidden(x)))), {})

    with pytest.raises(ConfigError, match="lif runs twice in one step"):
        stream(Shared(3)).start(torch.zeros(2, 6))
    with pytest.raises(ConfigError, match="neuron: a neuron with inhibition cannot be exported"):
        NetworkStep(One(Leaky(0.9, inhibition=True)))
    idle = SpikingToy(3)
    idle.unused = Leaky(0.9)
    with pytest.raises(ConfigError, match="unused is a neuron that the forward pass never uses"):
        stream(idle).start(torch.zeros(2, 6))


def test_export_leaves_the_network_as_it_was(tmp_path):
    network = SpikingToy(3).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inputs = example_inputs({"x": (4, 6)}, ("x",))
    save_program(network, inputs, tmp_path / "step.pt2")
    assert network.training
    assert isinstance(network.lif, Leaky)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
