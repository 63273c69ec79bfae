"""MSKD (Wang et al., IJCAI 2024): hit consistency and temporal consistency.

The paper's objective is `(1 - alpha) L_cls + alpha L_HCKD + alpha L_TCKD`: give both strategies weight 1 and set
`alpha` in the distiller. The equations of the two terms are not public, so each offers our readings by letter; A is the
default.
"""

from typing import Any, Literal

from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.consistency import (
    change_consistency,
    confidence,
    hit_consistency,
    hit_probability,
    hits,
    relation_consistency,
    step_consistency,
)
from sdsnn_lightning.strategies.arguments import one_of, positive
from sdsnn_lightning.strategies.logits import ReadoutStrategy
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.types import Step

Reading = Literal["A", "B", "C"]
READINGS = ("A", "B", "C")


class HitConsistency(ReadoutStrategy):
    """L_HCKD: the student copies the teacher where the teacher hits the target.

    Logs `hit_rate`, the share of samples (reading C: of samples and steps) the teacher gets right. Near 1, readings A
    and C are plain distillation.
    """

    needs_classes = True

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        reading: Reading = "A",
        temperature: float = 2.0,
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; 1 for the paper's total.
            reading: `A` distils the read-outs of the samples the teacher gets right, `B` matches the probability of the
                target on all samples, `C` distils every step at which the teacher is right.
            temperature: tau, softens both distributions; positive.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If the reading is none of A, B and C, or the temperature not positive.
        """
        super().__init__(weight, name)
        self.reading = one_of(reading, READINGS, "HitConsistency.reading")
        self.temperature = positive(temperature, "HitConsistency.temperature")
        self._hit_rate: Tensor | None = None

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term."""
        teacher, student = self.per_step(step) if self.reading == "C" else self.readouts(step)
        self._hit_rate = hits(teacher, step.target).float().mean()
        function = hit_probability if self.reading == "B" else hit_consistency
        return function(teacher, student, step.target, self.temperature)

    def logs(self) -> dict[str, Any]:
        """The teacher's hit rate on the last batch."""
        return {} if self._hit_rate is None else {"hit_rate": self._hit_rate}


class TemporalConsistency(ReadoutStrategy):
    """L_TCKD: the student follows the teacher through time."""

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        reading: Reading = "A",
        temperature: float = 2.0,
        confidence_weights: bool = False,
        change: Literal["mse", "kl"] = "mse",
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; 1 for the paper's total.
            reading: `A` distils the logits of every step, `B` matches the cosine similarities between the logits of all
                pairs of steps, `C` matches the changes of the logits from step to step.
            temperature: tau of the divergences; positive.
            confidence_weights: Whether readings A and C weight the steps by the teacher's probability of the target.
            change: Distance of the changes in reading C.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If a word is unknown, the temperature not positive, or reading B is to be weighted.
        """
        super().__init__(weight, name)
        self.reading = one_of(reading, READINGS, "TemporalConsistency.reading")
        self.temperature = positive(temperature, "TemporalConsistency.temperature")
        self.change = one_of(change, ("mse", "kl"), "TemporalConsistency.change")
        if confidence_weights and reading == "B":
            raise ConfigError("TemporalConsistency.confidence_weights: reading B compares pairs of steps; use A or C")
        self.confidence_weights = self.needs_classes = confidence_weights

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term.

        Raises:
            ConfigError: If a network has too few time steps for the reading.
        """
        if self.reading != "A" and self.teacher(step).logits.ndim == 2:
            raise ConfigError(f"{self.name}: a teacher without time steps has no relations to follow; use reading A")
        teacher, student = self.per_step(step)
        if self.reading == "B":
            return relation_consistency(teacher, student)
        weights = confidence(teacher, step.target) if self.confidence_weights else None
        if self.reading == "A":
            return step_consistency(teacher, student, self.temperature, weights)
        return change_consistency(teacher, student, self.temperature, weights, self.change)
