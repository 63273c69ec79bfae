"""A quantised activation and the integrate-and-fire neuron it turns into: conversion of a network to spikes."""

from typing import Any

import torch
from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.neurons.leaky import Leaky


class _Floor(torch.autograd.Function):
    """Floor forward, identity backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.floor()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class QuantisedActivation(nn.Module):
    """Quantisation-clip-floor-shift: `h(x) = value * clip(floor(x L / ceiling + 1/2) / L, 0, 1)`.

    Bu et al. (ICLR 2022), as in HSD (Zhong et al., arXiv 2409.12507): there `value` is the ceiling, which is trained
    from 8, and L is 4 in the script. The floor passes the gradient straight through. An integrate-and-fire neuron of
    the same ceiling emits the same mean over L steps of constant input, but for inputs right on an edge of two levels.
    """

    ceiling: Tensor

    def __init__(
        self, levels: int = 4, ceiling: float | Tensor = 8.0, trainable: bool = True, value: float | None = None
    ) -> None:
        """Creates the activation.

        Args:
            levels: L, steps between 0 and the ceiling.
            ceiling: Input from which on the output is highest; a number, or a tensor that broadcasts to `[B, ...]`.
            trainable: Whether the ceiling is trained and part of the state; otherwise it is a constant.
            value: The highest output; the ceiling itself where None.

        Raises:
            ConfigError: If `levels` is less than 1.
        """
        super().__init__()
        if levels < 1:
            raise ConfigError(f"levels is {levels}; set it to at least 1")
        self.levels, self.value = levels, value
        start = torch.as_tensor(ceiling, dtype=torch.float32).clone()
        if trainable:
            self.ceiling = nn.Parameter(start)
        else:
            self.register_buffer("ceiling", start, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps any shape to the same shape, in [0, ceiling] or [0, value]."""
        share = (_Floor.apply(x / self.ceiling * self.levels + 0.5) / self.levels).clamp(0.0, 1.0)
        return share * (self.ceiling if self.value is None else self.value)


class Triangular:
    """Triangular surrogate: `dS/dU = max(0, 1 - |U|)`, that of HSD's code with gamma 1."""

    def __call__(self, distance: Tensor) -> Tensor:
        """Spikes where `distance = membrane - threshold` is positive; same shape and dtype."""
        return _TriangularSpike.apply(distance)


class _TriangularSpike(torch.autograd.Function):
    """Heaviside forward, triangle backward."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor) -> Tensor:
        ctx.save_for_backward(distance)
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (distance,) = ctx.saved_tensors
        return grad * (1.0 - distance.abs()).clamp(min=0.0)


class IntegrateAndFire(nn.Module):
    """What a `QuantisedActivation` turns into: no leak, soft reset, half a threshold in the membrane at the start.

    It integrates `x / ceiling` to a threshold of 1, and its spikes leave with the value `ceiling`. The ceiling has the
    name and shape of the activation's, so that state dicts fit both. Where it is not 1, counters of operations see real
    values between the layers; fold it into the next weights for hardware.
    """

    ceiling: Tensor

    def __init__(self, ceiling: float | Tensor = 8.0) -> None:
        """Creates the neuron.

        Args:
            ceiling: Input that makes it fire at every step, and value of a spike; trained.
        """
        super().__init__()
        self.ceiling = nn.Parameter(torch.as_tensor(ceiling, dtype=torch.float32).clone())
        self.neuron = Leaky(beta=1.0, threshold=1.0, spike_grad=Triangular(), reset_mechanism="subtract")

    def forward(self, x: Tensor) -> Tensor:
        """Maps a current `[T, B, ...]` to `{0, ceiling}` `[T, B, ...]`."""
        current = x / self.ceiling
        head = torch.full_like(current[:1], 0.5)  # the membrane's start, as current before the first step
        current = torch.cat([current[:1] + head, current[1:]])
        return self.neuron(current) * self.ceiling
