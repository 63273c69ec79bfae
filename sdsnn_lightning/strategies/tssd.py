"""Temporal-spatial self-distillation, TSSD (Zuo et al., arXiv 2406.07862)."""

from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.features import as_maps
from sdsnn_lightning.losses.logits import distillation_loss
from sdsnn_lightning.strategies.arguments import not_negative, one_of, positive
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.strategies.stepwise import StepwiseStrategy
from sdsnn_lightning.types import Step

if TYPE_CHECKING:
    from sdsnn_lightning.distiller import Distiller


class WeakClassifier(nn.Module):
    """Pooling over positions and time, and one linear layer: the head of an intermediate stage."""

    def __init__(self, channels: int, num_classes: int) -> None:
        """Creates the head.

        Args:
            channels: D of the feature.
            num_classes: Number of classes K.
        """
        super().__init__()
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, feature: Tensor) -> Tensor:
        """Maps a feature `[T, B, D, ...]` to logits `[B, K]`; linear, so the mean over time may come first."""
        return self.linear(as_maps(feature, timed=True).mean((0, -2, -1)))


class TemporalSpatialSelfDistillation(StepwiseStrategy):
    """More time steps teach fewer, and the output teaches a weak classifier at an intermediate stage. No teacher.

    `L = CE + temporal * L_tsd + spatial * L_ssd`, in our reading of the two terms, with the student's read-outs `[B,
    K]` and tau^2 KL of softened probabilities::

        L_tsd = KL(o_T || o_S), o_T after all T training steps, without gradient; o_S after the first `steps` of them
        L_ssd = KL(o_T || o_W), o_T without gradient, o_W of the weak classifier

    The total is the paper's, and that T exceeds the steps of inference. Divergence, tau 2, both weights 1, T = 2
    `steps`, the middle stage and the detached teacher are ours: the paper's equations were not at hand.

    How events fill the longer window is open, hence `extension`. `longer`: the student's view holds T steps, whose
    first `steps` are those of inference; a network that works step by step needs one pass for both. `rebin`: the
    student's view holds the steps of inference, the teacher's view (`data.init_args.teacher_steps`) the same recording
    in more and finer ones; the student runs on both, with a cross-entropy of the longer pass added (ours).

    The weak classifier is an adapter: it trains, is in the checkpoint for resuming, and is no part of the student.
    """

    needs_teacher = False

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        temporal: float = 1.0,
        spatial: float = 1.0,
        steps: int | None = None,
        extension: Literal["longer", "rebin"] = "longer",
        tap: str | None = None,
        temperature: float = 2.0,
        weak_cross_entropy: float = 0.0,
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            temporal: Weight of L_tsd, the paper's alpha.
            spatial: Weight of L_ssd, the paper's beta.
            steps: Time steps of inference, fewer than those of training; half of them where None. For `longer` only.
            extension: Where the longer window comes from.
            tap: The student's feature that the weak classifier reads; the middle one where None.
            temperature: tau of both divergences; positive.
            weak_cross_entropy: Weight of a cross-entropy of the weak classifier; whether the paper has one is unknown.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If a number is out of its range or a word unknown.
        """
        super().__init__(weight, name)
        key = "TemporalSpatialSelfDistillation"
        self.temporal = not_negative(temporal, f"{key}.temporal")
        self.spatial = not_negative(spatial, f"{key}.spatial")
        self.weak_cross_entropy = not_negative(weak_cross_entropy, f"{key}.weak_cross_entropy")
        self.temperature = positive(temperature, f"{key}.temperature")
        self.extension = one_of(extension, ("longer", "rebin"), f"{key}.extension")
        if steps is not None and (steps < 1 or extension == "rebin"):
            raise ConfigError(
                f"{key}.steps is {steps}; "
                + ("leave it out with extension: rebin" if extension == "rebin" else "set it to at least 1")
            )
        self.steps, self.tap = steps, tap
        self._parts: dict[str, Tensor] = {}

    def build(self, distiller: "Distiller") -> nn.Module | None:
        """Makes the weak classifier.

        Raises:
            ConfigError: If the student lacks the feature, or has too few time steps.
        """
        super().build(distiller)
        self._distiller = distiller
        student, _ = distiller.example_outputs()
        total = len(student.logits)
        if self.extension == "longer":
            self.inference_steps = max(1, total // 2) if self.steps is None else self.steps
            if self.inference_steps >= total:
                raise ConfigError(
                    f"{self.name}.steps is {self.inference_steps}, but training has {total} time steps; give training "
                    "more (data.init_args), or set extension: rebin"
                )
        names = list(student.features)
        if not names or (self.tap is not None and self.tap not in names):
            raise ConfigError(
                f"{self.name}.tap: {type(distiller.student).__name__} has no feature '{self.tap or 'at all'}'; "
                f"it has {', '.join(names) or 'none'}"
            )
        self.tapped = self.tap or names[(len(names) - 1) // 2]
        channels = as_maps(student.features[self.tapped], timed=True).shape[2]
        return WeakClassifier(channels, distiller.num_classes)

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term; a scalar.

        Raises:
            ConfigError: If `rebin` finds no more time steps in the teacher's view.
        """
        from sdsnn_lightning.classifier import run_network  # it imports the strategies

        assert adapter is not None
        full, extra = step.student.logits, step.student.logits.new_zeros(())
        if self.extension == "longer":
            long, short = self.student_readout(full), self.student_readout(full[: self.inference_steps])
        else:
            finer = run_network(self._distiller.student, step.batch.teacher).logits
            if len(finer) <= len(full):
                raise ConfigError(
                    f"{self.name}: the teacher's view has {len(finer)} time steps and the student's {len(full)}; set "
                    "data.init_args.teacher_steps (or teacher_step_ms) to more and finer ones, or extension: longer"
                )
            long, short = self.student_readout(finer), self.student_readout(full)
            extra = functional.cross_entropy(long.float(), step.target, label_smoothing=self.label_smoothing)
        weak = adapter(step.student.features[self.tapped])
        parts = {
            "tsd": distillation_loss(long, short, self.temperature),
            "ssd": distillation_loss(long, weak, self.temperature),
            "weak": functional.cross_entropy(weak.float(), step.target),
        }
        self._parts = {key: part.detach() for key, part in parts.items()}
        return (
            self.temporal * parts["tsd"] + self.spatial * parts["ssd"] + self.weak_cross_entropy * parts["weak"] + extra
        )

    def logs(self) -> dict[str, Any]:
        """The parts before weighting: `tsd`, `ssd`, and the cross-entropy of the weak classifier."""
        return self._parts
