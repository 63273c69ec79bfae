"""Spiking neurons in NIR, the neuromorphic intermediate representation (Pedersen et al., 2024), and back.

NIR states neurons as equations in continuous time, `tau dv/dt = (v_leak - v) + R I`, that fire above `v_threshold` and
are then set to `v_reset`. One Euler step of `dt` seconds is::

    v[t] = (1 - dt / tau) v[t-1] + (dt / tau) R I[t]

so that our `u[t] = beta u[t-1] + current[t]` is exactly `tau = dt / (1 - beta)`, `R = 1 / (1 - beta)`, `v_leak = 0`,
`v_reset = 0`; with a current scaled by `1 - beta` (`PLIF`) `R = 1`; and for `beta = 1` an `IF` node with `R = 1 / dt`.
Firing is `u > threshold` in both. Our reset to zero comes with the next step and NIR's with the spike: the spikes are
the same. NIR has no reset by subtraction.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sdsnn_lightning.exports.step_neurons import StepIntegrate, StepNeuron

if TYPE_CHECKING:
    import nir

DT = 1e-4
"""Seconds of one step in the graph. snnTorch and other readers assume this one, whatever a step lasts in truth."""


def refusal(neuron: nn.Module) -> str | None:
    """Says what NIR lacks for a neuron, in a few words; None where it lacks nothing."""
    if isinstance(neuron, StepIntegrate):
        return "reset by subtraction"
    if not isinstance(neuron, StepNeuron):
        return None
    if neuron.reset != "zero":
        return "reset by subtraction" if neuron.reset == "subtract" else "no reset"
    if not neuron.ungraded:
        return "graded spikes"
    return None


def neuron_node(neuron: StepNeuron, shape: tuple[int, ...]) -> "nir.NIRNode":
    """Makes the node of one layer of neurons.

    Args:
        neuron: One without `refusal`.
        shape: Of one sample's currents; every parameter of the node has it.

    Returns:
        A `nir.LIF`, or a `nir.IF` where nothing leaks; parameters float32.
    """
    import nir

    def spread(value: Any) -> np.ndarray:
        wide = torch.as_tensor(value, dtype=torch.float64).expand(shape)
        return np.ascontiguousarray(wide.numpy().astype(np.float32))

    beta, threshold = neuron.beta.double(), spread(neuron.threshold)
    zero = np.zeros(shape, np.float32)
    if bool((beta == 1).all()):
        return nir.IF(r=spread(neuron.current_scale.double() / DT), v_threshold=threshold, v_reset=zero)
    leak = (1 - beta).clamp_min(1e-7)  # one of many neurons that does not leak: as good as not
    return nir.LIF(
        tau=spread(DT / leak),
        r=spread(neuron.current_scale.double() / leak),
        v_leak=zero,
        v_threshold=threshold,
        v_reset=zero,
    )


class ReadNeuron(nn.Module):
    """An `LIF` or `IF` node read back: one Euler step of `DT` a call, for `nirtorch.nir_to_torch`."""

    decay: Tensor
    gain: Tensor
    threshold: Tensor
    reset: Tensor

    def __init__(self, node: Any) -> None:
        """Takes the constants of a node, in float64 until the step is known."""
        super().__init__()
        leaky = hasattr(node, "tau")
        share = DT / node.tau.astype(np.float64) if leaky else np.full(node.r.shape, DT)  # of R I that arrives
        decay = 1 - share if leaky else np.ones(node.r.shape)
        constants = {"decay": decay, "gain": share * node.r, "threshold": node.v_threshold, "reset": node.v_reset}
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(value, np.float32).copy()))

    def forward(self, current: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps a current `[B, ...]` and the membrane to spikes and the membrane after the reset."""
        membrane = self.gain * current if state is None else self.decay * state + self.gain * current
        spikes = (membrane > self.threshold).to(current.dtype)
        return spikes, torch.where(spikes > 0, self.reset, membrane)
