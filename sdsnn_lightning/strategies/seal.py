"""Selective alignment, SeAl-KD (Sun, Duan et al., arXiv 2605.14252)."""

from typing import Any

from torch import Tensor, nn

from sdsnn_lightning.losses.between_steps import error_aligned_distillation, selective_alignment
from sdsnn_lightning.losses.temporal import stepwise_cross_entropy
from sdsnn_lightning.strategies.arguments import not_negative, one_of, positive
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.strategies.stepwise import StepwiseStrategy, TeacherTime
from sdsnn_lightning.types import Step


class SelectiveAlignment(StepwiseStrategy):
    """Teacher and steps correct what is wrong, and leave alone how the answer grows over time.

    `L = L_TWCE + teacher_alignment * L_ELA + step_alignment * L_STA` on student logits `[T, B, K]`: cross-entropy of
    every step, `losses.between_steps.error_aligned_distillation` and `selective_alignment`. The whole objective: set
    `model.init_args.alpha: 1`. 0.6 and 0.15 (official README; its scripts start from 0 and 1) and tau 3 are the
    authors'.
    """

    brings_task = True
    needs_classes = True

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        teacher_alignment: float = 0.6,
        step_alignment: float = 0.15,
        temperature: float = 3.0,
        teacher_time: TeacherTime = "mean",
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            teacher_alignment: Weight of L_ELA, the paper's alpha.
            step_alignment: Weight of L_STA, the paper's beta.
            temperature: tau of both; positive.
            teacher_time: `mean` of the teacher's logits over time, or its own `steps`.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If a number is out of its range or a word unknown.
        """
        super().__init__(weight, name)
        self.teacher_alignment = not_negative(teacher_alignment, "SelectiveAlignment.teacher_alignment")
        self.step_alignment = not_negative(step_alignment, "SelectiveAlignment.step_alignment")
        self.temperature = positive(temperature, "SelectiveAlignment.temperature")
        self.teacher_time = one_of(teacher_time, ("mean", "steps"), "SelectiveAlignment.teacher_time")
        self._parts: dict[str, Tensor] = {}

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term; a scalar."""
        logits = self.student_steps(step)
        task = stepwise_cross_entropy(logits, step.target, self.label_smoothing)
        teacher = error_aligned_distillation(self.teacher_steps(step), logits, step.target, self.temperature)
        steps = selective_alignment(logits, self.temperature)
        self._parts = {"twce": task.detach(), "ela": teacher.detach(), "sta": steps.detach()}
        return task + self.teacher_alignment * teacher + self.step_alignment * steps

    def logs(self) -> dict[str, Any]:
        """The parts before weighting: `twce`, `ela`, `sta`."""
        return self._parts
