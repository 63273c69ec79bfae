"""The few types every part of the package agrees on."""

from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

View = dict[str, Tensor]
"""Named modalities of one batch, each `[B, T, ...]`; one that does not change has `T = 1`."""


class Batch(NamedTuple):
    """What `on_after_batch_transfer` hands to a training step: two views of the same samples and their targets.

    Attributes:
        student: Modalities at the student's time resolution, each `[B, T_student, ...]`.
        teacher: The same samples at the teacher's time resolution, each `[B, T_teacher, ...]`. The same object as
            `student` where both networks see the same steps.
        target: Class indices `[B]`, int64; or, of mixed samples in training, probabilities `[B, K]`, float32.
        groups: Group indices `[B]`, int64, by the name of the grouping (`{"lighting": ...}`), for metrics only.

    Example:
        >>> import torch
        >>> view = {"frames": torch.zeros(2, 4, 3, 48, 48)}  # two clips of four frames
        >>> batch = Batch(view, view, torch.tensor([0, 6]), {})
        >>> batch.teacher is batch.student  # both networks see the same steps
        True
    """

    student: View
    teacher: View
    target: Tensor
    groups: dict[str, Tensor]


class Output(NamedTuple):
    """What a network returns.

    Attributes:
        logits: `[T, B, K]`, or `[B, K]` for a network without time. Real-valued (membrane or linear), never counts.
        features: Tapped activations by name, each `[T, B, ...]` (or `[B, ...]` without time).

    Example:
        >>> import torch
        >>> output = Output(torch.zeros(4, 2, 7), {"hidden": torch.zeros(4, 2, 128)})
        >>> output.logits.mean(0).shape  # the read-out of many networks: the mean over time
        torch.Size([2, 7])
    """

    logits: Tensor
    features: dict[str, Tensor]


class Step(NamedTuple):
    """All that a loss term may look at in one training step.

    Attributes:
        batch: The batch on the device.
        student: The student's output, with gradient.
        teacher: The teacher's output, without gradient; None where there is no teacher.
        target: Class indices `[B]`, int64; or, of mixed samples, probabilities `[B, K]`, float32.
        progress: Training progress in [0, 1].

    Example:
        >>> import torch
        >>> view = {"frames": torch.zeros(2, 4, 3, 48, 48)}
        >>> target = torch.tensor([0, 6])
        >>> student = teacher = Output(torch.zeros(4, 2, 7), {})
        >>> step = Step(Batch(view, view, target, {}), student, teacher, target, progress=0.5)
        >>> (step.student.logits - step.teacher.logits).square().mean().item()
        0.0
    """

    batch: Batch
    student: Output
    teacher: Output | None
    target: Tensor
    progress: float


@runtime_checkable
class Network(Protocol):
    """The contract of every network: a plain `nn.Module`, time-first inside.

    `inputs` names the modalities it consumes, in the order of `forward`'s arguments. The caller passes exactly those,
    each `[T, B, ...]`, so a network that does not name `events` can never see them.

    Example:
        >>> from torch import nn
        >>> class Mean(nn.Module):
        ...     inputs = ("frames",)
        ...     def __init__(self, num_classes):
        ...         super().__init__()
        ...         self.head = nn.Linear(3, num_classes)
        ...     def forward(self, frames):  # [T, B, 3, H, W]
        ...         return Output(self.head(frames.mean((-2, -1))), {})
        ...     def readout(self, logits):
        ...         return logits.mean(0)
        >>> isinstance(Mean(7), Network)
        True
    """

    inputs: ClassVar[tuple[str, ...]]

    def __call__(self, *inputs: Tensor) -> Output:
        """Maps modalities `[T, B, ...]` to per-step logits and features."""

    def readout(self, logits: Tensor) -> Tensor:
        """Turns the network's logits `[T, B, K]` or `[B, K]` into class scores `[B, K]`."""

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Every network is an `nn.Module`."""
