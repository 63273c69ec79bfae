"""Temporal efficient training (Deng et al., ICLR 2022, arXiv 2202.11946)."""

from torch import Tensor, nn

from sdsnn_lightning.losses.temporal import tet_loss
from sdsnn_lightning.strategies.arguments import not_negative
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.strategies.stepwise import StepwiseStrategy
from sdsnn_lightning.types import Step


class TemporalEfficientTraining(StepwiseStrategy):
    """Cross-entropy at every time step in place of that of the mean, and a pull of all outputs to one level.

    `(1 - lambda) (1/T) sum_t CE(z_t, y) + lambda mean((z - level)^2)`, student logits `[T, B, K]`. No teacher. In place
    of the distiller's cross-entropy: set `model.init_args.alpha: 1`. The form and the level (the firing threshold, 1)
    are the paper's; `regularisation = 0.05` is our default; smaller values serve long event sequences.
    """

    needs_teacher = False
    brings_task = True

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        regularisation: float = 0.05,
        level: float = 1.0,
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            regularisation: lambda, in [0, 1].
            level: What every output is drawn to.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If `regularisation` is out of its range.
        """
        super().__init__(weight, name)
        self.regularisation = not_negative(regularisation, "TemporalEfficientTraining.regularisation", most=1.0)
        self.level = level

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term; a scalar."""
        return tet_loss(self.student_steps(step), step.target, self.regularisation, self.level, self.label_smoothing)
