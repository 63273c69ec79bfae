"""Firing rates, dead and saturated neurons, and spike rasters of any network of snnTorch neurons."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import snntorch
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchmetrics import Metric

from sdsnn_lightning.metrics.padding import real_frames

SATURATED = 0.95
"""A neuron that fires in more than this share of all steps carries hardly more information than a dead one."""


class LayerActivity(NamedTuple):
    """What one layer of neurons did over all samples seen.

    Attributes:
        rate: Spikes per neuron and step, in [0, 1].
        neurons: Neurons of the layer (of one sample).
        dead: Share of neurons that never fired.
        saturated: Share of neurons that fired in more than `SATURATED` of the steps.
    """

    rate: float
    neurons: int
    dead: float
    saturated: float


def spiking_layers(network: nn.Module) -> dict[str, nn.Module]:
    """All `snntorch.Leaky` layers of a network that can spike, subclasses included, by dotted name.

    A read-out whose membrane is all that is used still counts: it fires, and its spikes reset it. One that is not to
    count never fires, because its threshold is infinite (with `reset_mechanism="none"`), or is no neuron at all, as
    `networks.keyword.integrate`.
    """
    neurons = ((name, module) for name, module in network.named_modules() if isinstance(module, snntorch.Leaky))
    return {name or "neuron": module for name, module in neurons if bool((module.threshold != float("inf")).any())}


def layer_spikes(layer: nn.Module, output: Any) -> Tensor:
    """Spikes of one call of a layer as `[T, B, ...]`.

    A plain `snntorch.Leaky` handles one step `[B, ...]` a call; every subclass is taken to be multi-step.

    Args:
        layer: The layer that was called.
        output: What it returned: spikes, or a tuple that starts with them.

    Returns:
        The spikes, detached.
    """
    spikes = (output[0] if isinstance(output, tuple) else output).detach()
    return spikes.unsqueeze(0) if type(layer) is snntorch.Leaky else spikes


class FiringRates(Metric):
    """Counts the spikes of every neuron while attached to a network.

    A spike is any non-zero output, so graded spikes count once. Where the network takes a `mask`, neurons are counted
    on real frames only. Hooks exist only between `attach` and `detach`, so training pays nothing. State is integer
    counts reduced by a sum, exact under distributed evaluation as long as every process has seen a batch (a distributed
    sampler sees to that)::

        rates = FiringRates(network)
        with rates.watch(network):
            network(frames)
        rates.compute()["conv1.neuron"].rate
    """

    full_state_update = False

    def __init__(self, network: nn.Module, **kwargs: Any) -> None:
        """Creates the metric; the network is not kept.

        Args:
            network: Its layers of neurons are counted.
            **kwargs: Passed to `torchmetrics.Metric`.
        """
        super().__init__(**kwargs)
        self.layers = list(spiking_layers(network))
        self._hooks: list[RemovableHandle] = []
        for index in range(len(self.layers)):
            # A scalar zero that takes the layer's shape with the first spikes added to it.
            self.add_state(f"fired_{index}", torch.zeros((), dtype=torch.long), "sum")
            self.add_state(f"steps_{index}", torch.zeros((), dtype=torch.long), "sum")

    def update(self, index: int, spikes: Tensor, real: Tensor | None = None) -> None:
        """Counts the spikes of one call of a layer.

        Args:
            index: Position of the layer in `layers`.
            spikes: `[T, B, ...]`.
            real: True on real frames `[T, B]`; None, or another number of steps than the spikes have: all are counted.
        """
        steps: int | Tensor = spikes.shape[0] * spikes.shape[1]
        if real is not None and real.shape == spikes.shape[:2]:
            spikes = spikes.ne(0) & real.reshape(*real.shape, *[1] * (spikes.dim() - 2))
            steps = real.sum()
        fired = getattr(self, f"fired_{index}") + torch.count_nonzero(spikes, dim=(0, 1))
        setattr(self, f"fired_{index}", fired)
        setattr(self, f"steps_{index}", getattr(self, f"steps_{index}") + steps)

    def attach(self, network: nn.Module) -> None:
        """Starts counting; the network must have the layers the metric was created with."""
        self.detach()

        real: Tensor | None = None

        def begin(network: nn.Module, inputs: tuple) -> None:
            nonlocal real
            real = real_frames(network, inputs)

        def hook(layer: nn.Module, inputs: Any, output: Any, index: int) -> None:
            self.update(index, layer_spikes(layer, output), real)

        layers = spiking_layers(network)
        self._hooks = [network.register_forward_pre_hook(begin)] + [
            layers[name].register_forward_hook(partial(hook, index=index)) for index, name in enumerate(self.layers)
        ]

    def detach(self) -> None:
        """Stops counting and removes every hook."""
        while self._hooks:
            self._hooks.pop().remove()

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator["FiringRates"]:
        """Counts within a `with` block."""
        self.attach(network)
        try:
            yield self
        finally:
            self.detach()

    def compute(self) -> dict[str, LayerActivity]:
        """Returns the activity of every layer that was called, by layer name, and of all neurons as `total`."""
        activity: dict[str, LayerActivity] = {}
        for index, name in enumerate(self.layers):
            fired, steps = getattr(self, f"fired_{index}").double(), int(getattr(self, f"steps_{index}"))
            if steps:
                rate = fired / steps
                dead, saturated = (fired == 0).double().mean().item(), (rate > SATURATED).double().mean().item()
                activity[name] = LayerActivity(rate.mean().item(), rate.numel(), dead, saturated)
        if activity:
            neurons = sum(layer.neurons for layer in activity.values())
            rate, dead, saturated = (
                sum(layer[field] * layer.neurons for layer in activity.values()) / neurons for field in (0, 2, 3)
            )
            activity["total"] = LayerActivity(rate, neurons, dead, saturated)
        return activity

    def scalars(self) -> dict[str, float]:
        """The same as `compute`, flat for a logger: `firing_rate/<layer>`, `dead/<layer>`, `saturated/<layer>`."""
        names = {"firing_rate": "rate", "dead": "dead", "saturated": "saturated"}
        activity = self.compute()
        return {f"{key}/{name}": getattr(a, field) for key, field in names.items() for name, a in activity.items()}


def record_spikes(network: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    """Runs a network once and keeps every spike, for pictures.

    Args:
        network: Any network of snnTorch neurons; left in the mode it is in.
        inputs: What its `forward` takes, each `[T, B, ...]`.

    Returns:
        By layer name `[T, B, N]`, bool, on the CPU, with the neurons flattened.
    """
    calls: dict[str, list[Tensor]] = {}

    def hook(layer: nn.Module, args: Any, output: Any, name: str) -> None:
        calls.setdefault(name, []).append(layer_spikes(layer, output).flatten(2).ne(0).cpu())

    hooks = [layer.register_forward_hook(partial(hook, name=name)) for name, layer in spiking_layers(network).items()]
    try:
        with torch.no_grad():
            network(*inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return {name: torch.cat(spikes) for name, spikes in calls.items()}
