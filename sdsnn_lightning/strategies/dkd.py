"""DKD (Zhao et al., CVPR 2022, arXiv 2203.08679): decoupled knowledge distillation."""

from torch import Tensor, nn

from sdsnn_lightning.losses.logit_variants import decoupled_distillation
from sdsnn_lightning.strategies.arguments import positive
from sdsnn_lightning.strategies.logits import ReadoutStrategy
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.types import Step


class DecoupledDistillation(ReadoutStrategy):
    """Hinton's loss in two parts with weights of their own: `alpha TCKD + beta NCKD` on the read-outs.

    alpha = 1 and beta = 8 are typical choices for CIFAR (general knowledge, not re-read in the paper), as is
    temperature 4. The paper warms the term up over the first 20 of 240 epochs: give `weight` a
    `Linear` schedule for that.
    """

    needs_classes = True

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            alpha: Weight of the target class against all others.
            beta: Weight of the other classes among themselves.
            temperature: tau, softens both distributions; positive.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If the temperature is not positive.
        """
        super().__init__(weight, name)
        self.alpha, self.beta = alpha, beta
        self.temperature = positive(temperature, "DecoupledDistillation.temperature")

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term on the read-outs `[B, K]`."""
        teacher, student = self.readouts(step)
        return decoupled_distillation(teacher, student, step.target, self.alpha, self.beta, self.temperature)
