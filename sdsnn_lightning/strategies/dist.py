"""DIST (Huang et al., NeurIPS 2022, arXiv 2205.10536): knowledge distillation from a stronger teacher."""

from torch import Tensor, nn

from sdsnn_lightning.losses.logit_variants import relational_distillation
from sdsnn_lightning.strategies.arguments import positive
from sdsnn_lightning.strategies.logits import ReadoutStrategy
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.types import Step


class RelationalDistillation(ReadoutStrategy):
    """DIST: correlations of class probabilities, within samples and within classes, on the read-outs.

    `tau^2 (beta inter + gamma intra)`. beta = gamma = 1 and tau = 4 are our defaults, common in public versions of the
    loss; not re-read in the paper.
    """

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 4.0,
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            beta: Weight of the relations between classes, per sample.
            gamma: Weight of the relations between samples, per class.
            temperature: tau, softens both distributions; positive.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If the temperature is not positive.
        """
        super().__init__(weight, name)
        self.beta, self.gamma = beta, gamma
        self.temperature = positive(temperature, "RelationalDistillation.temperature")

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term on the read-outs `[B, K]`."""
        teacher, student = self.readouts(step)
        return relational_distillation(teacher, student, self.beta, self.gamma, self.temperature)
