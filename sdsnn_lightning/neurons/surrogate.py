"""Surrogate gradients of the spike: small callables that pickle, deep-copy and come from a YAML.

Each one is a Heaviside step forward and a bump backward, and works wherever snnTorch takes a `spike_grad`. Unlike
snnTorch's closures they keep the dtype of their input, so float64 gradients stay float64.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

SpikeGrad = Callable[..., Any]  # Tensor -> Tensor; spelt so, a YAML may name a class whose instances are called


def derivative(distance: Tensor, kind: str, param: float) -> Tensor:
    """The derivative that stands in for that of the Heaviside step.

    Args:
        distance: Membrane minus threshold, any shape, floating point.
        kind: `atan`, `fast_sigmoid` or `rectangular`.
        param: `alpha`, `slope` or `width`, in that order.

    Returns:
        dS/dU, same shape and dtype.
    """
    if kind == "atan":
        return (param / 2) / (1 + (math.pi / 2 * param * distance).square())
    if kind == "fast_sigmoid":
        return 1 / (param * distance.abs() + 1).square()
    return (distance.abs() < param / 2).to(distance.dtype)


class _Spike(torch.autograd.Function):
    """Heaviside forward, surrogate backward."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, kind: str, param: float) -> Tensor:
        ctx.save_for_backward(distance)
        ctx.kind, ctx.param = kind, param
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (distance,) = ctx.saved_tensors
        return grad * derivative(distance, ctx.kind, ctx.param), None, None


@dataclass(frozen=True)
class ATan:
    """Arctangent surrogate, snnTorch's default: `dS/dU = (alpha/2) / (1 + (pi/2 * alpha * U)^2)`.

    Fang et al., "Incorporating Learnable Membrane Time Constant", ICCV 2021, in snnTorch's scaling.

    Attributes:
        alpha: Sharpness; the peak is `alpha / 2`.
    """

    alpha: float = 2.0
    kind: ClassVar[str] = "atan"

    @property
    def param(self) -> float:
        """The one number of the curve."""
        return float(self.alpha)

    def __call__(self, distance: Tensor) -> Tensor:
        """Spikes where `distance = membrane - threshold` is positive; same shape and dtype."""
        return _Spike.apply(distance, self.kind, self.param)


@dataclass(frozen=True)
class FastSigmoid:
    """Fast sigmoid surrogate: `dS/dU = 1 / (1 + slope * |U|)^2`.

    Zenke and Ganguli, "SuperSpike", Neural Computation 2018.

    Attributes:
        slope: Sharpness; the peak is 1.
    """

    slope: float = 25.0
    kind: ClassVar[str] = "fast_sigmoid"

    @property
    def param(self) -> float:
        """The one number of the curve."""
        return float(self.slope)

    def __call__(self, distance: Tensor) -> Tensor:
        """Spikes where `distance = membrane - threshold` is positive; same shape and dtype."""
        return _Spike.apply(distance, self.kind, self.param)


@dataclass(frozen=True)
class Rectangular:
    """Rectangular surrogate: `dS/dU = 1` where `|U| < width / 2`, else 0.

    `h1` of Wu et al., "Spatio-Temporal Backpropagation", Frontiers in Neuroscience 2018, there divided by the width.
    Here the height stays 1 as in SEEN (arXiv 2310.04043), whose window `|V - threshold| < 0.5` is `width=1`; at that
    width both agree.

    Attributes:
        width: Full width of the window.
    """

    width: float = 1.0
    kind: ClassVar[str] = "rectangular"

    @property
    def param(self) -> float:
        """The one number of the curve."""
        return float(self.width)

    def __call__(self, distance: Tensor) -> Tensor:
        """Spikes where `distance = membrane - threshold` is positive; same shape and dtype."""
        return _Spike.apply(distance, self.kind, self.param)


Surrogate = ATan | FastSigmoid | Rectangular


def recognise(spike_grad: SpikeGrad) -> Surrogate | None:
    """Finds the surrogate behind a `spike_grad`, looking into the closures of `snntorch.surrogate`.

    Args:
        spike_grad: Any callable accepted by snnTorch.

    Returns:
        The equal surrogate of this module, or None where there is none.
    """
    if isinstance(spike_grad, Surrogate):
        return spike_grad
    if getattr(spike_grad, "__module__", None) != "snntorch.surrogate":
        return None
    cells = [cell.cell_contents for cell in getattr(spike_grad, "__closure__", None) or ()]
    if len(cells) != 1 or not isinstance(cells[0], (int, float)):
        return None
    stock: dict[str, Callable[[float], Surrogate]] = {
        "atan.<locals>.inner": ATan,
        "fast_sigmoid.<locals>.inner": FastSigmoid,
    }
    make = stock.get(getattr(spike_grad, "__qualname__", ""))
    return make(cells[0]) if make else None
