"""The base of every strategy that works on the student's logits of every time step."""

from typing import TYPE_CHECKING, Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.strategies.logits import ReadoutStrategy
from sdsnn_lightning.strategies.schedules import weight_at
from sdsnn_lightning.types import Step

if TYPE_CHECKING:
    from sdsnn_lightning.distiller import Distiller

TeacherTime = Literal["mean", "steps"]


class StepwiseStrategy(ReadoutStrategy):
    """Checks before training that the student has time steps, and fits the teacher's to them.

    Padded steps, whose logits a masking network sets to zero, add a constant without gradient.

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

    def teacher_steps(self, step: Step) -> Tensor:
        """The teacher's logits as the student's steps see them: `[B, K]`, or `[T, B, K]` with `teacher_time: steps`.

        Raises:
            ConfigError: If its number of steps is no multiple of the student's.
        """
        logits, steps = self.teacher(step).logits, len(step.student.logits)
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
