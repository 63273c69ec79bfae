"""Weighted soft-label distillation: the logits half of BKDSNN (Xu et al., ECCV 2024)."""

from typing import Any

from torch import Tensor, nn

from sdsnn_lightning.losses.logit_variants import focal_weight, weighted_soft_labels
from sdsnn_lightning.strategies.arguments import positive
from sdsnn_lightning.strategies.logits import ReadoutStrategy
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.types import Step


class WeightedSoftLabelDistillation(ReadoutStrategy):
    """L_LD: the teacher's soft labels, each sample weighted by how much better the teacher knows it.

    `weight * tau^2 mean(w H)` on the read-outs, see `weighted_soft_labels`. Temperature 2 and weight 1 are the released
    code's; one of its two Spikingformer scripts for CIFAR10-DVS has weight 0.1. Logs `focal_weight`, the mean of w.
    """

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
        self.temperature = positive(temperature, "WeightedSoftLabelDistillation.temperature")
        self._focal: Tensor | None = None

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term on the read-outs `[B, K]`."""
        teacher, student = self.readouts(step)
        self._focal = focal_weight(teacher.float(), student.float(), step.target).mean()
        return weighted_soft_labels(teacher, student, step.target, self.temperature)

    def logs(self) -> dict[str, Any]:
        """The mean weight of the last batch."""
        return {} if self._focal is None else {"focal_weight": self._focal}
