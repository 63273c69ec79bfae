"""What a tensor holds, spikes or real values, told in few passes over it."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Kind = Literal["silent", "binary", "integer", "analogue"]
KINDS: tuple[Kind, ...] = ("silent", "binary", "integer", "analogue")


class Activity(NamedTuple):
    """What one tensor holds. Flags are 0.0 or 1.0, so that a whole pass can be read from a GPU at once.

    Attributes:
        nonzero: Number of elements that are not zero.
        spikes: Sum of |x|: a value of k stands for k spikes. 0 where the tensor is analogue.
        analogue: Whether any value is not an integer.
        integer: Whether all values are integers, of which some are neither 0 nor 1.
        two_valued: Whether it holds at most two different values, all within [0, 1]; syops-counter takes those for
            spikes.
        mean: Mean of a tensor that is `two_valued`, otherwise 0.
    """

    nonzero: float
    spikes: float
    analogue: float
    integer: float
    two_valued: float
    mean: float

    @property
    def kind(self) -> Kind:
        """The kind of input: nothing but zeros, 0 and 1, integers (of either sign), or real values."""
        if self.analogue:
            return "analogue"
        if self.integer:
            return "integer"
        return "binary" if self.nonzero else "silent"


def classify(values: Tensor) -> Kind:
    """Says whether a tensor of any shape is all zero, holds only 0 and 1, integers (of either sign), or real values."""
    return Activity(*activity(values).tolist()).kind


def activity(values: Tensor, only_two_valued: bool = False) -> Tensor:
    """Measures a tensor.

    On the CPU real values are told by a look at a few of them, and spikes cost about 1 ns an element. On a GPU nothing
    waits for the result.

    Args:
        values: Of any shape and any real dtype.
        only_two_valued: Whether `two_valued` and `mean` are all that is wanted: real values then cost nothing on the
            CPU.

    Returns:
        The fields of `Activity`, `[6]`, float64, on the device of the values.
    """
    x = values.detach()
    if not x.is_floating_point():
        x = x.float()
    if x.numel() == 0:
        return torch.tensor([0.0, 0, 0, 0, 1, 0], dtype=torch.float64, device=x.device)
    return _on_cpu(x, only_two_valued) if x.device.type == "cpu" else _on_device(x)


def _on_device(x: Tensor) -> Tensor:
    """Without branches on values, which would wait for the device."""
    low, high = x.aminmax()
    analogue = (x != x.round()).any()
    total, nonzero = x.sum(dtype=torch.float64), x.count_nonzero()
    bounded = (low >= 0) & (high <= 1)
    two = ((x == low) | (x == high)).all() & bounded
    spikes = torch.where(analogue, 0.0, x.abs().sum(dtype=torch.float64))
    fields = (nonzero, spikes, analogue, ~analogue & ~bounded, two, torch.where(two, total / x.numel(), 0.0))
    return torch.stack([field.double() for field in fields])


def _on_cpu(x: Tensor, only_two_valued: bool) -> Tensor:
    some = x
    while some.dim() > 1:
        some = some[len(some) // 2]
    some = some.reshape(-1)[:256]
    many = len(some.unique()) > 2
    if only_two_valued and many:
        return torch.zeros(6, dtype=torch.float64)
    analogue = not torch.equal(some, some.round())
    low, high = (float(value) for value in x.aminmax())
    bounded = low >= 0 and high <= 1
    if not analogue and bounded and torch.equal(x, x * x):  # nothing but 0 and 1
        total = _sum(x)
        return torch.tensor([total, total, 0.0, 0.0, 1.0, total / x.numel()], dtype=torch.float64)
    analogue = analogue or bounded or not torch.equal(x, x.round())
    nonzero = _sum(x.sign().abs_())
    two = bounded and not many and bool(((x == low) | (x == high)).all())
    spikes = 0.0 if analogue else _sum(x.abs())
    mean = _sum(x) / x.numel() if two else 0.0
    return torch.tensor([nonzero, spikes, analogue, not analogue, two, mean], dtype=torch.float64)


def _sum(x: Tensor) -> float:
    """Sum over all elements; rows in their own dtype, which is fast and exact for spikes, and those in float64."""
    rows = x.sum(-1, dtype=torch.float32 if x.element_size() < 4 else None) if x.dim() else x
    return rows.sum(dtype=torch.float64).item()
