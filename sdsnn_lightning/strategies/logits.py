"""Plain logit distillation, the baseline of every other method."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.logits import distillation_loss
from sdsnn_lightning.strategies.arguments import positive
from sdsnn_lightning.strategies.base import Strategy
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.types import Output, Step

if TYPE_CHECKING:
    from sdsnn_lightning.distiller import Distiller


class ReadoutStrategy(Strategy):
    """A strategy that looks at class scores or at per-step logits of student and teacher."""

    def build(self, distiller: "Distiller") -> nn.Module | None:
        """Keeps both networks' read-outs; they have no parameters of this term."""
        self.student_readout: Callable[[Tensor], Tensor] = distiller.student.readout  # type: ignore[assignment]
        # Asked again at every step: a curriculum may have promoted another teacher meanwhile.
        self.teacher_readout: Callable[[Tensor], Tensor] = lambda logits: distiller.teacher.readout(logits)  # type: ignore[operator, union-attr]
        return None

    def readouts(self, step: Step) -> tuple[Tensor, Tensor]:
        """Class scores of teacher and student, each `[B, K]`."""
        return self.teacher_readout(self.teacher(step).logits), self.student_readout(step.student.logits)

    def per_step(self, step: Step) -> tuple[Tensor, Tensor]:
        """Logits of teacher and student at every step, each `[T, B, K]`; a teacher without time is repeated.

        Raises:
            ConfigError: If the student has no time axis, or the teacher another number of steps.
        """
        teacher, student = self.teacher(step).logits, step.student.logits
        if student.ndim != 3:
            raise ConfigError(
                f"{self.name} compares time steps, but the student's logits have none; use a read-out loss"
            )
        if teacher.ndim == 2:
            teacher = teacher.expand(len(student), *teacher.shape)
        if len(teacher) != len(student):
            raise ConfigError(
                f"{self.name} compares time steps, but the teacher has {len(teacher)} and the student {len(student)}; "
                "give both the same number"
            )
        return teacher, student

    def teacher(self, step: Step) -> Output:
        """The teacher's output, which the distiller has made sure of."""
        assert step.teacher is not None, f"{self.name} needs a teacher"
        return step.teacher


class LogitDistillation(ReadoutStrategy):
    """Knowledge distillation of Hinton et al. (arXiv 1503.02531): tau^2 KL(teacher || student) of the read-outs."""

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
        self.temperature = positive(temperature, "LogitDistillation.temperature")

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term on the read-outs `[B, K]`."""
        teacher, student = self.readouts(step)
        return distillation_loss(teacher, student, self.temperature)
