"""Training one time step at a time, with memory that does not grow with their number: SLTT (Meng et al., ICCV 2023)."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sdsnn_lightning.classifier import Classifier, network_inputs
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.neurons.leaky import Leaky
from sdsnn_lightning.neurons.quantised import IntegrateAndFire
from sdsnn_lightning.types import Batch

TOLERANCE = 1e-6
"""Largest difference of logits, in float64, between a network run step by step and run whole."""


@contextmanager
def carried_states(network: nn.Module) -> Iterator[None]:
    """Lets the neurons of a network go on from where their last call ended, without gradient through that.

    Within this context `network(*frames)` takes one time step, `[1, B, ...]`; the first call starts from rest.

    Args:
        network: Its `Leaky` neurons, PLIF included, must be all that holds a state.

    Raises:
        ConfigError: If a neuron cannot be stepped.
    """
    states: dict[Leaky, Tensor] = {}

    def stepping(neuron: Leaky) -> Any:
        def forward(current: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            out, state = neuron.step(current[0], states.get(neuron))
            states[neuron] = state.detach()
            return (out[0][None], out[1][None]) if isinstance(out, tuple) else out[None]

        return forward

    for name, module in network.named_modules():
        if isinstance(module, IntegrateAndFire):
            raise ConfigError(f"{name}: integrate-and-fire twins are not trained step by step; use another network")
    neurons = [module for module in network.modules() if isinstance(module, Leaky)]
    try:
        for neuron in neurons:
            neuron.forward = stepping(neuron)  # type: ignore[method-assign]
        yield
    finally:
        for neuron in neurons:
            neuron.__dict__.pop("forward", None)


class _Known(torch.autograd.Function):
    """A loss whose gradients are known already: its backward pass hands them out, times that of the loss."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor | None, ...], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        return None, None, *(None if g is None else outputs[0] * g for g in ctx.gradients)


class OnlineClassifier(Classifier):
    """Trains a spiking network without gradient through time, in memory that is constant in the number of steps T.

    Spatial learning through time (SLTT): the loss of every step is `CE(o[t], y) / T`, as in the paper, and its gradient
    goes through the layers of that step alone, so a step's activations are dropped before the next step begins. What
    remains over time is one membrane a neuron. Batch norm takes the statistics of each step, as the paper's code does.
    `SpatialLeaky(temporal_gradient=False)` computes the same gradient of the whole sequence at once, faster and in
    memory that grows with T.

    Evaluation is that of `Classifier`: the whole sequence, the network's own read-out.

    Example:
        >>> from functools import partial
        >>> from torch.optim import SGD
        >>> from sdsnn_lightning import OnlineClassifier
        >>> from sdsnn_lightning.networks import SpikingKeyword
        >>> model = OnlineClassifier(SpikingKeyword, num_classes=10, optimizer=partial(SGD, lr=0.1))
        >>> model.num_classes
        10
    """

    def on_fit_start(self) -> None:
        """Checks that the network is the same function step by step.

        Raises:
            ConfigError: If something besides its neurons mixes time steps.
        """
        shapes = getattr(self._datamodule, "input_shapes", None)
        if shapes is None:
            return
        generator = torch.Generator().manual_seed(0)
        view = {name: torch.rand(2, *shape, generator=generator).double() for name, shape in shapes.items()}
        network = copy.deepcopy(self.network).cpu().double().eval()
        inputs = network_inputs(network, view)
        with torch.no_grad():
            whole = network(*inputs).logits
            with carried_states(network):
                frames = [network(*frame).logits for frame in _frames(inputs)]
        if whole.ndim != 3 or not torch.allclose(torch.cat(frames), whole, rtol=0, atol=TOLERANCE):
            raise ConfigError(
                f"{type(network).__name__} mixes time steps outside its neurons, so it cannot be trained step by step; "
                "choose another network, or model.class_path: sdsnn_lightning.Classifier"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One training step over all time steps, each with a backward pass of its own; returns the loss."""
        inputs = network_inputs(self.network, getattr(batch, self.view))
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        gradients: list[Tensor | None] = [None] * len(parameters)
        frames = _frames(inputs)
        total = torch.zeros((), device=batch.target.device)
        with carried_states(self.network):
            for frame in frames:
                loss = self.task_loss(self.network(*frame), batch.target) / len(frames)
                new = torch.autograd.grad(loss, parameters, allow_unused=True)
                for k, gradient in enumerate(new):
                    if gradient is not None:
                        known = gradients[k]
                        gradients[k] = gradient if known is None else known.add_(gradient)
                total = total + loss.detach()
        loss = _Known.apply(total, tuple(gradients), *parameters)
        return self._finish({"task": total}, loss)


def _frames(inputs: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """Cuts inputs `[T, B, ...]` into steps `[1, B, ...]`; one that does not change over time stays as it is."""
    steps = max(len(x) for x in inputs)
    return [tuple(x if len(x) == 1 else x[t : t + 1] for x in inputs) for t in range(steps)]
