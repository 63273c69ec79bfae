"""Training one time step at a time, with memory that does not grow with their number: SLTT (Meng et al., ICCV 2023)."""

from typing import Any

import torch
from torch import Tensor

from sdsnn_lightning.classifier import Classifier, network_inputs
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.segments import carried_states, check_steps, cut
from sdsnn_lightning.types import Batch


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
        >>> from sdsnn_lightning.networks import PlainStudent
        >>> model = OnlineClassifier(PlainStudent, num_classes=10, optimizer=partial(SGD, lr=0.1))
        >>> model.num_classes
        10
    """

    def on_fit_start(self) -> None:
        """Checks that the network is the same function step by step.

        Raises:
            ConfigError: If something besides its neurons mixes time steps, or `lean_memory` or a precision that scales
                losses is set.
        """
        if self.lean_memory:
            raise ConfigError(
                "model.init_args.lean_memory saves nothing where OnlineClassifier keeps one time step; leave it out"
            )
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise ConfigError(  # its gradients would underflow before the scaled loss is known
                "OnlineClassifier takes its gradients without the scaled loss of trainer.precision: 16-mixed; "
                "set bf16-mixed or 32-true"
            )
        check_steps(self.network, self._datamodule)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One training step over all time steps, each with a backward pass of its own; returns the loss."""
        inputs = network_inputs(self.network, getattr(batch, self.view))
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        gradients: list[Tensor | None] = [None] * len(parameters)
        frames = cut(inputs)
        total = torch.zeros((), device=batch.target.device)
        with carried_states(self.network) as states:
            for frame in frames:
                loss = self.task_loss(self.network(*frame), batch.target) / len(frames)
                new = torch.autograd.grad(loss, parameters, allow_unused=True)
                for k, gradient in enumerate(new):
                    if gradient is not None:
                        known = gradients[k]
                        # Not in place: autograd hands one tensor to two parameters that are added up.
                        gradients[k] = gradient if known is None else known + gradient
                total = total + loss.detach()
                states.update({neuron: state.detach() for neuron, state in states.items()})
        loss = _Known.apply(total, tuple(gradients), *parameters)
        return self._finish({"task": total}, loss)
