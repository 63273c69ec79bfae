"""Temporal knowledge sharing, TKS (Dong et al., IEEE TAI 2024, arXiv 2304.06540)."""

from torch import Tensor, nn

from sdsnn_lightning.losses.between_steps import knowledge_sharing
from sdsnn_lightning.strategies.arguments import positive
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.strategies.stepwise import StepwiseStrategy
from sdsnn_lightning.types import Step


class TemporalKnowledgeSharing(StepwiseStrategy):
    """The steps at which the student is right teach those at which it is wrong. No teacher.

    `losses.between_steps.knowledge_sharing` on the student's logits `[T, B, K]`. The idea is the paper's; target,
    normalisation, weight 1 and tau 2 are ours.
    """

    needs_teacher = False
    needs_classes = True

    def __init__(self, weight: float | Schedule = 1.0, temperature: float = 2.0, name: str | None = None) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            temperature: tau, softens both distributions; positive.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If the temperature is not positive.
        """
        super().__init__(weight, name)
        self.temperature = positive(temperature, "TemporalKnowledgeSharing.temperature")

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term; a scalar."""
        return knowledge_sharing(self.student_steps(step), step.target, self.temperature)
