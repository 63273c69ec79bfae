"""The base of every strategy that works on the student's logits of every time step."""

from typing import TYPE_CHECKING, Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.strategies.features import real_mask
from sdsnn_lightning.strategies.logits import ReadoutStrategy
from sdsnn_lightning.strategies.schedules import weight_at
from sdsnn_lightning.types import Step, View

if TYPE_CHECKING:
    from sdsnn_lightning.distiller import Distiller

TeacherTime = Literal["mean", "steps"]


class StepwiseStrategy(ReadoutStrategy):
    """Checks before training that the student has time steps, and fits the teacher's to them.

    A step that is padding learns nothing, and says what the sample's real ones say on average; see `fill_padding`.

    Attributes:
        teacher_time: `mean` compares every step with the mean of the teacher's logits over time, as in papers whose
            teacher has no time; `steps` with the teacher's own steps. Where it has n times as many, each n are
            averaged. Without effect on a teacher without time.
    """

    brings_task: bool = False
    """Whether `loss` holds a cross-entropy that takes the place of the distiller's."""

    teacher_time: TeacherTime = "mean"

    def build(self, distiller: "Distiller") -> nn.Module | None:
        """Keeps both read-outs and the label smoothing; there are no parameters of this term.

        Raises:
            ConfigError: If the student's logits have no time axis.
        """
        student, _ = distiller.example_outputs()
        if student.logits.ndim != 3:
            raise ConfigError(
                f"{self.name} compares time steps, but the student's logits {tuple(student.logits.shape)} have none; "
                "choose a student with time steps (model.init_args.student), or a strategy on read-outs"
            )
        self.label_smoothing: float = distiller.label_smoothing
        if self.brings_task and (distiller.alpha is None or weight_at(distiller.alpha, 0.0) != 1.0):
            rank_zero_warn(
                f"{self.name} brings its own cross-entropy; set model.init_args.alpha: 1 to leave out that of the "
                "read-out, as in the paper"
            )
        return super().build(distiller)

    def student_steps(self, step: Step) -> Tensor:
        """The student's logits of every step, `[T, B, K]`."""
        return fill_padding(step.student.logits, step.batch.student)

    def teacher_steps(self, step: Step) -> Tensor:
        """The teacher's logits as the student's steps see them: `[B, K]`, or `[T, B, K]` with `teacher_time: steps`.

        Raises:
            ConfigError: If its number of steps is no multiple of the student's.
        """
        logits, steps = fill_padding(self.teacher(step).logits, step.batch.teacher), len(step.student.logits)
        if logits.ndim == 2:
            return logits
        if self.teacher_time == "mean":
            return logits.mean(0)
        if len(logits) % steps:
            raise ConfigError(
                f"{self.name}: the teacher has {len(logits)} time steps and the student {steps}; "
                "make the teacher's a multiple, or set teacher_time: mean"
            )
        return logits.unflatten(0, (steps, -1)).mean(1)


def fill_padding(logits: Tensor, view: View) -> Tensor:
    """Puts the mean of a sample's real steps in the place of its padded ones, without gradient (ours).

    A network that masks says nothing there, logits of zero: to a loss between steps that would be an answer.

    Args:
        logits: `[T, B, K]`, or `[B, K]`.
        view: What the network saw; its `mask` `[B, T]`, if it has one of this length, tells real steps.

    Returns:
        The logits; the very same tensor where nothing is padded by a mask.
    """
    real = real_mask(view, len(logits)) if logits.ndim == 3 else None
    if real is None:
        return logits
    weight = real.unsqueeze(-1).to(logits.dtype)
    mean = (logits.detach() * weight).sum(0) / weight.sum(0).clamp_min(1.0)
    return torch.where(real.unsqueeze(-1), logits, mean)
