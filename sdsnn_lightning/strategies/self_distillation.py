"""Weak-to-strong and strong-to-weak temporal self-distillation (Ding et al., NeurIPS 2025)."""

from torch import Tensor, nn

from sdsnn_lightning.losses.between_steps import Direction, Variant, strong_weak_distillation
from sdsnn_lightning.strategies.arguments import one_of, positive
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.strategies.stepwise import StepwiseStrategy
from sdsnn_lightning.types import Step


class TemporalSelfDistillation(StepwiseStrategy):
    """The student's T steps as T sub-models: the surest and the least sure of a batch teach each other. No teacher.

    `CE + weight * KL(softmax(z_teaching / tau) || softmax(z_taught / tau))` with student logits `[T, B, K]`; see
    `losses.between_steps.strong_weak_distillation`. weight 1 (0.01 for the transformer QKFormer), tau 2 and no factor
    tau^2 are the paper's. It reports weak-to-strong ahead on CIFAR10-DVS and strong-to-weak on DVS-Gesture, there best
    with `cascade`.
    """

    needs_teacher = False

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        direction: Direction = "weak_to_strong",
        variant: Variant = "single",
        temperature: float = 2.0,
        detach: bool = True,
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term, the paper's lambda; a number, or a schedule of training progress.
            direction: `weak_to_strong` or `strong_to_weak`: who teaches whom.
            variant: `single`, `ensemble_teacher`, `ensemble_student`, `simultaneous` or `cascade`.
            temperature: tau, softens both distributions; positive.
            detach: Whether the teaching side receives no gradient; the paper does not say.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If the temperature is not positive or a word unknown.
        """
        super().__init__(weight, name)
        key = "TemporalSelfDistillation"
        directions = ("strong_to_weak", "weak_to_strong")
        variants = ("single", "ensemble_teacher", "ensemble_student", "simultaneous", "cascade")
        self.direction = one_of(direction, directions, f"{key}.direction")
        self.variant = one_of(variant, variants, f"{key}.variant")
        self.temperature, self.detach = positive(temperature, f"{key}.temperature"), detach

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term; a scalar."""
        return strong_weak_distillation(
            self.student_steps(step), self.direction, self.variant, self.temperature, self.detach
        )
