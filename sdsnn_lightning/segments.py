"""Long sequences in segments: states that go on from one to the next, and training in memory of order sqrt(T)."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sdsnn_lightning.classifier import Classifier, network_inputs
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.neurons.leaky import Leaky
from sdsnn_lightning.neurons.quantised import IntegrateAndFire
from sdsnn_lightning.types import Output, View

TOLERANCE = 1e-6
"""Largest difference of logits, in float64, between a network run step by step and run whole; of the largest logit
where that is above 1."""


@contextmanager
def carried_states(network: nn.Module, states: dict[Leaky, Tensor] | None = None) -> Iterator[dict[Leaky, Tensor]]:
    """Lets the neurons of a network go on from where their last call ended.

    Within this context `network(*inputs)` takes a segment of a sequence, `[L, B, ...]`.

    Args:
        network: Its `Leaky` neurons, PLIF included, must be all that holds a state.
        states: Where the neurons start from; from rest by default.

    Yields:
        The states after the last call, with their gradient; whoever wants none detaches them there.

    Raises:
        ConfigError: If a neuron cannot be run in segments.
    """
    states = {} if states is None else states

    def going_on(neuron: Leaky) -> Any:
        def forward(current: Tensor, gain: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
            out, states[neuron] = neuron.proceed(current, states.get(neuron))
            if gain is None:
                return out
            return (out[0] * gain, out[1]) if isinstance(out, tuple) else out * gain

        return forward

    for name, module in network.named_modules():
        if isinstance(module, IntegrateAndFire):
            raise ConfigError(f"{name}: integrate-and-fire twins are not trained step by step; use another network")
    neurons = [module for module in network.modules() if isinstance(module, Leaky)]
    try:
        for neuron in neurons:
            neuron.forward = going_on(neuron)  # type: ignore[method-assign]
        yield states
    finally:
        for neuron in neurons:
            neuron.__dict__.pop("forward", None)


def cut(inputs: tuple[Tensor, ...], segments: int | None = None) -> list[tuple[Tensor, ...]]:
    """Cuts inputs `[T, B, ...]` along time.

    Args:
        inputs: Of a network; one that does not change over time has `T = 1` and goes with every segment.
        segments: How many, of equal length or one step apart; None for single steps.

    Returns:
        The inputs of each segment, views.
    """
    steps = max(len(x) for x in inputs)
    pieces = [x.tensor_split(segments or steps) if len(x) > 1 else None for x in inputs]
    return [
        tuple(x if piece is None else piece[k] for x, piece in zip(inputs, pieces, strict=True))
        for k in range(min(segments or steps, steps))
    ]


@torch.no_grad()
def mixes_steps(network: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether something besides its neurons mixes the time steps of a network in evaluation.

    Asked of a copy whose neurons let their current through, since silent ones would hide what lies behind them.

    Args:
        network: Stays as it is.
        inputs: Its modalities `[T, B, ...]`.
    """
    network = copy.deepcopy(network).cpu().double().eval()
    for neuron in (module for module in network.modules() if isinstance(module, Leaky | IntegrateAndFire)):
        neuron.forward = _let_both_through if getattr(neuron, "output", False) else _let_through  # type: ignore[method-assign]
    inputs = tuple(x.double() for x in inputs)
    return _differ(network(*inputs).logits, [network(*frame).logits for frame in cut(inputs)])


def _let_through(current: Tensor, gain: Tensor | None = None) -> Tensor:
    return current


def _let_both_through(current: Tensor, gain: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return current, current


def _differ(whole: Tensor, frames: list[Tensor]) -> bool:
    """Whether logits step by step are not those of the whole sequence, or the sequence has but one answer."""
    largest = max(1.0, whole.abs().max().item())
    return whole.ndim != 3 or not torch.allclose(torch.cat(frames), whole, rtol=0, atol=TOLERANCE * largest)


def check_steps(network: nn.Module, datamodule: Any) -> None:
    """Checks that a network in evaluation is the same function step by step as over a whole sequence.

    Args:
        network: Stays as it is.
        datamodule: Says what the network sees; without its `input_shapes` nothing is checked.

    Raises:
        ConfigError: If something besides its neurons mixes time steps.
    """
    shapes = getattr(datamodule, "input_shapes", None)
    if shapes is None:
        return
    generator = torch.Generator().manual_seed(0)
    view = {name: torch.rand(2, *shape, generator=generator).double() for name, shape in shapes.items()}
    inputs = network_inputs(network, view)
    alone = copy.deepcopy(network).cpu().double().eval()
    with torch.no_grad():
        whole = alone(*inputs).logits
        with carried_states(alone):
            frames = [alone(*frame).logits for frame in cut(inputs)]
    if _differ(whole, frames) or mixes_steps(network, inputs):
        raise ConfigError(
            f"{type(network).__name__} mixes time steps outside its neurons, so it cannot be trained step by step; "
            "choose another network, or model.class_path: sdsnn_lightning.Classifier"
        )


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch norms normalise as in training, without counting the batch once more."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counted


def run_in_segments(network: nn.Module, inputs: tuple[Tensor, ...], segments: int | None = None) -> Tensor:
    """Runs a network so that backward needs little memory: it computes the activations of each segment again.

    Between the segments one membrane a neuron is kept, and within one, while it is at work, what a forward pass of its
    length keeps. Gradients flow through all of time. They and the logits are those of the whole sequence but for
    batch norm in training, which takes the statistics of each segment, and dropout, which draws anew in each.

    Args:
        network: Time-first; its `Leaky` neurons are all that mixes time steps.
        inputs: Its modalities `[T, B, ...]`.
        segments: How many; by default `sqrt(T)`, which need the least.

    Returns:
        Logits `[T, B, K]`.
    """
    neurons = [module for module in network.modules() if isinstance(module, Leaky)]
    again = False

    def run(piece: tuple[Tensor, ...], *states: Tensor | None) -> tuple[Tensor | None, ...]:
        start = {neuron: state for neuron, state in zip(neurons, states, strict=True) if state is not None}
        with carried_states(network, start) as after, _statistics_kept(network) if again else nullcontext():
            logits = network(*piece).logits
        return logits, *map(after.get, neurons)

    states: list[Tensor | None] = [None] * len(neurons)
    logits = []
    for piece in cut(inputs, segments or math.ceil(math.sqrt(max(len(x) for x in inputs)))):
        part, *states = checkpoint(run, piece, *states, use_reentrant=False)
        logits.append(part)
    again = True  # from here on it is backward that runs
    return torch.cat(logits)


class SegmentedClassifier(Classifier):
    """Trains a spiking network on long sequences, in memory that grows with the square root of the number of steps T.

    The sequence is run in `sqrt(T)` segments, whose activations are dropped and computed again in backward (activation
    checkpointing over time: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016). That is a third more
    arithmetic, and costs more time than that where a segment is little work. The gradient is the whole one, through all
    of time, unlike that of `OnlineClassifier`. Batch norm takes the statistics of each segment, and dropout draws anew
    in each. The network's features are not kept, so there is no distillation here.

    Evaluation is that of `Classifier`: the whole sequence.

    Example:
        >>> from functools import partial
        >>> from torch.optim import SGD
        >>> from sdsnn_lightning import SegmentedClassifier
        >>> from sdsnn_lightning.networks import PlainStudent
        >>> model = SegmentedClassifier(PlainStudent, num_classes=10, optimizer=partial(SGD, lr=0.1))
        >>> model.num_classes
        10
    """

    def on_fit_start(self) -> None:
        """Checks that the network is the same function in segments.

        Raises:
            ConfigError: If something besides its neurons mixes time steps, or a neuron has no gradient through time, or
                `lean_memory` is set, too.
        """
        if self.lean_memory:
            raise ConfigError(
                "model.init_args.lean_memory keeps what SegmentedClassifier computes again; leave it out, or choose "
                "model.class_path: sdsnn_lightning.Classifier"
            )
        if any(not getattr(module, "temporal_gradient", True) for module in self.network.modules()):
            raise ConfigError(
                "SegmentedClassifier is for gradients through time; leave out temporal_gradient: false, or choose "
                "model.class_path: sdsnn_lightning.OnlineClassifier"
            )
        check_steps(self.network, self._datamodule)

    def _trained_output(self, view: View) -> Output:
        """The logits, whose backward computes the rest again."""
        return Output(run_in_segments(self.network, network_inputs(self.network, view)), {})
