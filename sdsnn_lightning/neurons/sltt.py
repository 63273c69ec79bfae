"""A leaky neuron whose gradient does not go back in time: SLTT (Meng et al., ICCV 2023)."""

from typing import Any

import torch
from torch import Tensor

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.neurons.leaky import Leaky


class SpatialLeaky(Leaky):
    """`Leaky` that may be trained without gradient through time ("spatial learning through time").

    With `temporal_gradient=False` the spikes stay those of `Leaky`, and the gradient is that of a loop which detaches
    the membrane at every step, after its reset, as the authors' code does::

        u[t] = beta * detached(u[t-1], reset) + current[t]
        dL/dcurrent[t] = dL/ds[t] * surrogate(u[t] - threshold)

    so a step's gradient needs nothing of the steps before it. A learnable beta still learns from the membrane it acts
    on, a learnable threshold from the spikes of its own step.

    What this saves here is the backward sweep over time; what is kept for the backward pass is one tensor of the size
    of the current, for all T steps, as in `Leaky`. The paper's memory, constant in T, comes from running a network one
    step at a time and going back after each: that is `OnlineClassifier`.

    `step` and `proceed` are those of `Leaky`: between them whoever wants no gradient through time detaches the state.

    Attributes:
        temporal_gradient: Whether the gradient goes back in time.
    """

    output: bool

    def __init__(self, *args: Any, temporal_gradient: bool = True, **kwargs: Any) -> None:
        """Creates the neuron.

        Args:
            *args: As in `Leaky`.
            temporal_gradient: Whether the gradient goes back in time, as in `Leaky`; False is SLTT.
            **kwargs: As in `Leaky`.

        Raises:
            ConfigError: If `temporal_gradient=False` meets an option it does not know: a reset that is not delayed,
                inhibition, a quantised membrane, or no surrogate.
        """
        super().__init__(*args, **kwargs)
        self.temporal_gradient = temporal_gradient
        if temporal_gradient:
            return
        if not (self.reset_delay or self.reset_mechanism == "none"):
            raise ConfigError("temporal_gradient: false needs reset_delay: true; the spikes are the same with it")
        for option in ("inhibition", "state_quant", "surrogate_disable"):
            if getattr(self, option):
                raise ConfigError(f"temporal_gradient: false does not work with {option}; leave one of them out")

    def forward(self, current: Tensor, gain: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Runs the neuron over a sequence from zero state; see `Leaky.forward`.

        Args:
            current: Input current `[T, B, ...]`, floating point.
            gain: Multiplies the spikes, broadcastable to `[B, ...]`.

        Returns:
            Spikes `[T, B, ...]`, with `output` also the membrane before the reset.
        """
        if self.temporal_gradient:
            return super().forward(current, gain)
        x = current if current.dtype == torch.float64 else current.float()
        membrane = self._membrane(x)
        # Adds zeros in the forward pass, and in the backward pass the only ways a gradient may take.
        u = membrane + (x - x.detach())
        if self.beta.requires_grad:
            beta = self.beta.clamp(0, 1)
            u = u + (beta - beta.detach()).to(x.dtype) * self._left(membrane)
        spikes = self.spike_grad(u - self.threshold) * self.graded_spikes_factor
        if gain is not None:
            spikes = spikes * gain.detach()
        if self.output:
            return spikes.to(current.dtype), u.to(current.dtype)
        return spikes.to(current.dtype)

    @torch.no_grad()
    def _membrane(self, x: Tensor) -> Tensor:
        """The membrane `[T, B, ...]` before the reset, by the fused forward pass."""
        wanted, self.output = self.output, True
        try:
            return Leaky.forward(self, x)[1]
        finally:
            self.output = wanted

    @torch.no_grad()
    def _left(self, membrane: Tensor) -> Tensor:
        """What the decay acts on, `[T, B, ...]`: the membrane of the step before, set to zero where that step fired.

        A reset by subtraction comes after the decay in snnTorch's equation, so it is no part of it.
        """
        before = membrane[:-1]
        if self.reset_mechanism == "zero":
            before = before * (before <= self.threshold)
        return torch.cat([torch.zeros_like(membrane[:1]), before])
