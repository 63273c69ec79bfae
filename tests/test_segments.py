"""Training in segments of time: the same numbers as over the whole sequence, in memory of order sqrt(T)."""

import itertools

import pytest
import torch
from test_online import Dense
from torch import nn
from torch.profiler import ProfilerActivity, profile

from sdsnn_lightning import SegmentedClassifier
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks import SEEN, VGGSNN, SpikingKeyword
from sdsnn_lightning.neurons import PLIF, ATan, Leaky
from sdsnn_lightning.segments import carried_states, check_steps, cut, run_in_segments
from sdsnn_lightning.types import Batch

RESETS = [(reset, delay) for reset in ("subtract", "zero", "none") for delay in (True, False)]


def neurons():
    for (reset, delay), learn, detach in itertools.product(RESETS, (False, True), (True, False)):
        yield Leaky(
            0.8, 0.6, ATan(2.0), learn_beta=True, learn_threshold=learn, reset_mechanism=reset, reset_delay=delay,
            detach_reset=detach, output=True,
        )  # fmt: skip
    yield Leaky(torch.tensor([0.5, 0.9, 1.2])[:, None], torch.tensor([0.4, 1.0, -0.3])[:, None], output=True)
    yield Leaky(torch.tensor([0.5, 0.9, 1.2])[:, None], torch.tensor([0.4, 1.0, 0.3])[:, None], output=True)
    yield PLIF(1.7, 0.6, output=True)
    yield Leaky(0.8, 0.6, graded_spikes_factor=0.5, output=True)


@pytest.mark.parametrize("lengths", [(6, 1, 7), (14,), (1,) * 14, (3, 11)])
@pytest.mark.parametrize("number", range(sum(1 for _ in neurons())))
def test_stretches_in_turn_are_the_whole_sequence(number, lengths):
    neuron = list(neurons())[number].double()
    torch.manual_seed(number)
    current = torch.randn(14, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 14, 2, 3, 4, dtype=torch.float64)

    def gradients(spikes, membrane):
        leaves = [current, *neuron.parameters()]
        return torch.autograd.grad((spikes * weights[0] + membrane * weights[1]).sum(), leaves)

    whole = neuron(current)
    expected = gradients(*whole)
    state, parts = None, []
    for piece in current.split(lengths):
        part, state = neuron.proceed(piece, state)
        parts.append(part)
    pieces = [torch.cat(column) for column in zip(*parts, strict=True)]
    assert whole[0].sum() > 0
    assert torch.equal(pieces[0], whole[0])
    torch.testing.assert_close(pieces[1], whole[1], rtol=0, atol=1e-12)
    for ours, theirs in zip(gradients(*pieces), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("output", [False, True])
def test_a_gain_holds_in_every_stretch(output):
    neuron, gain, current = Leaky(0.9, output=output), torch.rand(4, 50), torch.rand(6, 4, 50)
    whole = neuron(current, gain)
    with carried_states(neuron):
        parts = [neuron(piece, gain) for piece in current.split(2)]
    ours = [torch.cat(column) for column in zip(*parts, strict=True)] if output else [torch.cat(parts)]
    for a, b in zip(ours, whole if output else [whole], strict=True):
        torch.testing.assert_close(a, b)


def test_a_carried_membrane_costs_no_spike_in_single_precision():
    neuron, current = Leaky(0.9, output=True), torch.rand(64, 4, 50)
    _, state = neuron.proceed(current[:30])
    (spikes, membrane), _ = neuron.proceed(current[30:], state)
    whole = neuron(current)
    assert torch.equal(spikes, whole[0][30:])
    assert torch.equal(membrane, whole[1][30:])


def test_inputs_are_cut_along_time_and_a_constant_one_goes_with_every_segment():
    moving, still = torch.arange(7.0)[:, None], torch.tensor([[9.0]])
    pieces = cut((moving, still), 3)
    assert [piece[0].flatten().tolist() for piece in pieces] == [[0, 1, 2], [3, 4], [5, 6]]
    assert all(piece[1] is still for piece in pieces)
    assert [len(piece[0]) for piece in cut((moving, still))] == [1] * 7
    assert len(cut((moving,), 100)) == 7


@pytest.mark.parametrize("segments", [1, 3, 17])
def test_gradients_are_those_of_the_whole_sequence(segments):
    x = torch.randn(17, 5, 6, dtype=torch.float64)
    whole, ours = Dense().double(), Dense().double()
    expected = whole(x).logits
    logits = run_in_segments(ours, (x,), segments)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(logits)
    (expected * weights).sum().backward()
    (logits * weights).sum().backward()
    for (name, a), b in zip(whole.named_parameters(), ours.parameters(), strict=True):
        assert a.grad.abs().max() > 0, name
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-10, atol=1e-12, msg=name)
    assert not any("forward" in module.__dict__ for module in ours.modules())


class Wide(Dense):
    """Dense with a batch norm, and dropout, which must be the same both times."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 9), nn.Flatten(0, 1), nn.BatchNorm1d(9), nn.Dropout(0.3))
        self.first.append(nn.Unflatten(0, (-1, 5)))


def test_batch_norm_counts_every_segment_once():
    network, twin = Wide().double(), Wide().double()
    x = torch.randn(6, 5, 6, dtype=torch.float64)
    torch.manual_seed(3)
    logits = run_in_segments(network, (x,), 2)
    logits.sum().backward()
    for piece in x.chunk(2):
        twin.first(piece)
    ours, theirs = network.first[2], twin.first[2]
    assert ours.num_batches_tracked == 2
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert ours.momentum == 0.1


class Broad(Dense):
    """Dense with layers so wide that its logits are nothing beside them."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 200), nn.Linear(200, 200), nn.Linear(200, 3)


def peak(steps, segments):
    """Most bytes that a forward and backward pass has in use at once, beyond its input's."""
    network, x = Broad(), torch.randn(steps, 8, 6)

    def step():
        logits = run_in_segments(network, (x,), segments) if segments else network(x).logits
        logits.square().sum().backward()

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events))


def test_memory_grows_with_the_square_root_of_time():
    few, many = peak(36, 6), peak(576, 24)
    assert many < 1.2 * 4 * few
    assert peak(576, 0) > 8 * many


def data(inputs):
    class Data:
        input_shapes = inputs

    return Data


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (lambda: SpikingKeyword(3, mels=8, hidden=6), {}, "SpikingKeyword mixes time steps outside its neurons"),
        (Dense, {"lean_memory": True}, "lean_memory keeps what SegmentedClassifier computes again"),
        (lambda: Dense(temporal_gradient=False), {}, "OnlineClassifier"),
    ],
)
def test_what_cannot_be_cut_is_refused(network, options, message):
    model = SegmentedClassifier(network(), num_classes=3, optimizer=torch.optim.SGD, **options)
    model.__class__ = type("WithData", (SegmentedClassifier,), {"_datamodule": data({"audio": (9, 8)})})
    with pytest.raises(ConfigError, match=message):
        model.on_fit_start()


def test_what_silent_neurons_hide_is_found():
    """At the start no spike gets as far as the skip, or out of SEEN's frame path: their logits show nothing."""
    skips, shape = [("conv6", "conv8", 1)], (4, 2, 16, 16)
    check_steps(VGGSNN(3, size=16, width=0.125), data({"events": shape})())
    with pytest.raises(ConfigError, match="VGGSNN mixes time steps outside its neurons"):
        check_steps(VGGSNN(3, size=16, width=0.125, skips=skips), data({"events": shape})())
    with pytest.raises(ConfigError, match="SEEN mixes time steps outside its neurons"):
        check_steps(SEEN(3, size=32), data(dict.fromkeys(("frames", "events"), (4, 3, 32, 32)))())


def test_training_step_uses_square_root_of_time():
    model = SegmentedClassifier(Dense().double(), num_classes=3, optimizer=torch.optim.SGD)
    model._finish = lambda terms, total: total  # logging needs a Trainer
    view = {"x": torch.randn(5, 17, 6, dtype=torch.float64)}
    lengths = []
    hook = model.network.head.register_forward_hook(lambda module, inputs, output: lengths.append(len(output)))
    model.training_step(Batch(view, view, torch.arange(5) % 3, {}), 0)
    hook.remove()
    assert lengths == [4, 4, 3, 3, 3]
