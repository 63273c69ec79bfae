"""Temporal-wise logits distillation (Yu et al., ICML 2025, arXiv 2501.15925)."""

from typing import Any

from torch import Tensor, nn

from sdsnn_lightning.losses.temporal import (
    Ensemble,
    self_ensemble_distillation,
    stepwise_cross_entropy,
    stepwise_distillation,
)
from sdsnn_lightning.strategies.arguments import not_negative, one_of, positive
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.strategies.stepwise import StepwiseStrategy, TeacherTime
from sdsnn_lightning.types import Step


class TemporalLogits(StepwiseStrategy):
    """Cross-entropy, teacher and self-ensemble at every time step, for a student that answers well at any of them.

    `L = L_TWCE + distillation * L_TWKL + self_distillation * L_TWSD`, with student logits `z_t` `[T, B, K]`::

        L_TWCE = (1/T) sum_t CE(z_t, y)
        L_TWKL = (1/T) sum_t tau^2 KL(softmax(z_teacher / tau) || softmax(z_t / tau))
        L_TWSD = (1/T) sum_t tau^2 KL(softmax(z_ensemble / tau) || softmax(z_t / tau)), no gradient into z_ensemble

    The whole objective of the paper: set `model.init_args.alpha: 1`, which leaves out the cross-entropy of the
    read-out. 0.2, 0.5 (the commands of the official README; its program's defaults are 0), and tau 3 are the paper's.
    Its teacher sees one image, for events the mean frame, and has no time.
    """

    brings_task = True

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        distillation: float = 0.2,
        self_distillation: float = 0.5,
        temperature: float = 3.0,
        ensemble: Ensemble = "all",
        cross_entropy: float = 1.0,
        teacher_time: TeacherTime = "mean",
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            distillation: Weight of L_TWKL, the paper's alpha; 0 needs no teacher.
            self_distillation: Weight of L_TWSD, the paper's beta.
            temperature: tau, softens all distributions; positive.
            ensemble: What the steps are joined to: `all` (the paper's text) or the `correct` ones (its code).
            cross_entropy: Weight of L_TWCE; 0 leaves the distiller's own cross-entropy the only one.
            teacher_time: `mean` of the teacher's logits over time, or its own `steps`.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If a number is out of its range or a word unknown.
        """
        super().__init__(weight, name)
        key = type(self).__name__
        self.distillation = not_negative(distillation, f"{key}.distillation")
        self.self_distillation = not_negative(self_distillation, f"{key}.self_distillation")
        self.cross_entropy = not_negative(cross_entropy, f"{key}.cross_entropy")
        self.temperature = positive(temperature, f"{key}.temperature")
        self.ensemble = one_of(ensemble, ("all", "correct"), f"{key}.ensemble")
        self.teacher_time = one_of(teacher_time, ("mean", "steps"), f"{key}.teacher_time")
        self.needs_teacher = distillation > 0
        self.needs_classes = ensemble == "correct"
        self.brings_task = cross_entropy > 0
        self._parts: dict[str, Tensor] = {}

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term; a scalar."""
        logits = self.student_steps(step)
        parts = {
            "twce": stepwise_cross_entropy(logits, step.target, self.label_smoothing),
            "twsd": self_ensemble_distillation(logits, step.target, self.temperature, self.ensemble),
        }
        total = self.cross_entropy * parts["twce"] + self.self_distillation * parts["twsd"]
        if self.needs_teacher:
            parts["twkl"] = stepwise_distillation(self.teacher_steps(step), logits, self.temperature)
            total = total + self.distillation * parts["twkl"]
        self._parts = {key: part.detach() for key, part in parts.items()}
        return total

    def logs(self) -> dict[str, Any]:
        """The parts before weighting: `twce`, `twkl`, `twsd`."""
        return self._parts
