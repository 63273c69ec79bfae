"""Head-tail-aware distillation, HTA-KL (Zhang et al., arXiv 2504.20445)."""

from typing import Literal

from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.temporal import head_tail_divergence
from sdsnn_lightning.strategies.arguments import one_of, positive
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.strategies.stepwise import StepwiseStrategy
from sdsnn_lightning.types import Step


class HeadTailDistillation(StepwiseStrategy):
    """Forward divergence for the teacher's likely classes, reverse for its unlikely ones, by where the student is off.

    `losses.temporal.head_tail_divergence` on the read-outs `[B, K]`, or on the logits of every step. Its exact form,
    temperature and head share are our reading: the paper gives the idea.
    """

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        temperature: float = 2.0,
        head: float = 0.5,
        time: Literal["mean", "steps"] = "mean",
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            temperature: tau, softens both distributions; positive.
            head: Cumulative probability of the head, in (0, 1).
            time: `mean` compares the read-outs, `steps` every step with the mean of the teacher's logits.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If a number is out of its range or a word unknown.
        """
        super().__init__(weight, name)
        self.temperature = positive(temperature, "HeadTailDistillation.temperature")
        self.time = one_of(time, ("mean", "steps"), "HeadTailDistillation.time")
        if not 0 < head < 1:
            raise ConfigError(f"HeadTailDistillation.head is {head}; set it above 0 and below 1")
        self.head = head

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term; a scalar."""
        if self.time == "mean":
            teacher, student = self.readouts(step)
        else:
            student = self.student_steps(step)
            teacher = self.teacher_steps(step).expand_as(student)
        return head_tail_divergence(teacher, student, self.temperature, self.head)
