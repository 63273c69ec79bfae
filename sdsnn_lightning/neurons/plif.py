"""PLIF, the parametric leaky integrate-and-fire neuron: one learnable time constant a layer."""

import math

import torch
from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.neurons.sltt import SpatialLeaky
from sdsnn_lightning.neurons.surrogate import ATan, SpikeGrad


def just_below(threshold: float) -> float:
    """The float32 number below a threshold: `Leaky` fires above its threshold, others from their threshold on."""
    return torch.nextafter(torch.tensor(threshold), torch.tensor(-math.inf)).item()


class PLIF(SpatialLeaky):
    """Fang et al., "Incorporating Learnable Membrane Time Constant", ICCV 2021, on the fused `Leaky`.

    With `tau = 1 + exp(-w)`, that is `1 / tau = sigmoid(w)`, the neuron charges, fires and resets to zero::

        u[t] = u[t-1] + (current[t] - u[t-1]) / tau = beta * u[t-1] + (1 - beta) * current[t],  beta = 1 - sigmoid(w)
        s[t] = 1 if u[t] >= threshold else 0

    The paper's `w` starts at `-ln(tau - 1)`, so that `tau = 2` is `w = 0`; threshold 1, hard reset without gradient,
    surrogate `ATan(2)` are those of the authors' code. `learn=False` is the plain LIF neuron of the same library.

    Attributes:
        w: The learnt number, no dimensions; a parameter, or a buffer without `learn`.
    """

    w: Tensor

    def __init__(
        self,
        tau: float = 2.0,
        threshold: float = 1.0,
        spike_grad: SpikeGrad | None = None,
        learn: bool = True,
        decay_input: bool = True,
        temporal_gradient: bool = True,
        output: bool = False,
    ) -> None:
        """Creates the neuron.

        Args:
            tau: Time constant in steps to begin with, above 1.
            threshold: The membrane fires from here on.
            spike_grad: Surrogate, `ATan(2)` by default.
            learn: Whether the time constant is trained.
            decay_input: Whether the current is multiplied by `1 / tau`, as in the paper.
            temporal_gradient: Whether the gradient goes back in time; see `SpatialLeaky`.
            output: Whether `forward` also returns the membrane.

        Raises:
            ConfigError: If tau is not above 1.
        """
        if tau <= 1:
            raise ConfigError(f"tau is {tau}; a leaky neuron's time constant is above 1 step (2 is the paper's)")
        super().__init__(
            beta=1 - 1 / tau,
            threshold=just_below(threshold),
            spike_grad=ATan(2.0) if spike_grad is None else spike_grad,
            reset_mechanism="zero",
            output=output,
            temporal_gradient=temporal_gradient,
        )
        del self._buffers["beta"]  # from here on the property below answers
        w = torch.tensor(-math.log(tau - 1))
        if learn:
            self.w = nn.Parameter(w)
        else:
            self.register_buffer("w", w)
        self.decay_input = decay_input

    @property
    def beta(self) -> Tensor:
        """Decay of the membrane per step, `1 - 1 / tau`, no dimensions."""
        return torch.sigmoid(-self.w)

    @property
    def tau(self) -> Tensor:
        """Time constant in steps, no dimensions."""
        return 1 + torch.exp(-self.w)

    def forward(self, current: Tensor, gain: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Runs the neuron over a sequence from zero state; see `Leaky.forward`."""
        return super().forward(self._scaled(current), gain)

    def step(self, current: Tensor, state: Tensor | None = None) -> tuple[Tensor | tuple[Tensor, Tensor], Tensor]:
        """Runs one time step online; see `Leaky.step`."""
        return super().step(self._scaled(current), state)

    def proceed(self, current: Tensor, state: Tensor | None = None) -> tuple[Tensor | tuple[Tensor, Tensor], Tensor]:
        """Runs a stretch of a sequence; see `Leaky.proceed`."""
        return super().proceed(self._scaled(current), state)

    def _scaled(self, current: Tensor) -> Tensor:
        return current * torch.sigmoid(self.w) if self.decay_input else current
