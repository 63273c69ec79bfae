"""SAMD and NLD (Liu et al., "A closer look at knowledge distillation in SNN training", AAAI 2026, arXiv 2511.06902)."""

from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.activation_maps import Normalise, class_activation, map_distillation
from sdsnn_lightning.losses.features import Pair, mean_over_time
from sdsnn_lightning.losses.temporal import noise_smoothed_distillation
from sdsnn_lightning.strategies.arguments import not_negative, one_of, positive
from sdsnn_lightning.strategies.features import FeatureStrategy, Taps
from sdsnn_lightning.strategies.logits import ReadoutStrategy
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.types import Step

if TYPE_CHECKING:
    from sdsnn_lightning.distiller import Distiller


class ActivationMapDistillation(FeatureStrategy):
    """SAMD: the student's spikes lie where the teacher's class-activation map is bright.

    The teacher's map is that of its answer, `max(0, sum_d w[c, d] F[d])` with the weights w of its classifier; the
    student's the sum of its last stage's spikes over time and channels; both `[B, H, W]`. The loss is
    `losses.activation_maps.map_distillation`. Nothing is trained but the student. weight 1, tau 2 and the last stage
    are the paper's; its code takes minimum and maximum over the whole batch (`normalise: batch`), ours over each
    sample.

    Where a network has vectors only, the time steps are the positions of the map; a teacher with neither is refused.
    """

    positions_of = "both"

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        taps: Taps = None,
        teacher_taps: Taps = None,
        temperature: float = 2.0,
        normalise: Normalise = "sample",
        head: str | None = None,
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            taps: The student's feature; its last map by default.
            teacher_taps: The teacher's, which its classifier reads after pooling.
            temperature: tau, softens both maps; positive.
            normalise: Whether minimum and maximum are those of each `sample` or of the `batch`.
            head: Dotted name of the teacher's classifier, an `nn.Linear`; found by its shape where left out.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If the temperature is not positive or a word unknown.
        """
        super().__init__(weight, taps, teacher_taps, "auto", name)
        self.temperature = positive(temperature, "ActivationMapDistillation.temperature")
        self.normalise = one_of(normalise, ("sample", "batch"), "ActivationMapDistillation.normalise")
        self.head = head
        self._answers: Tensor | None = None

    def build(self, distiller: "Distiller") -> nn.Module | None:
        """Finds the teacher's classifier and tries the term on one zero sample.

        Raises:
            ConfigError: If there is no classifier for the feature, or the features give no maps.
        """
        self._distiller = distiller
        teacher = distiller.example_outputs()[1]
        assert teacher is not None, f"{self.name} needs a teacher"
        self._answers = self._answers_of(teacher.logits)
        return super().build(distiller)

    def _answers_of(self, logits: Tensor) -> Tensor:
        """The class `[B]` that the teacher's own read-out of its logits names."""
        return self._distiller.teacher.readout(logits).argmax(-1)  # type: ignore[operator, union-attr]

    def adapter(self, pair: Pair) -> nn.Module:
        """Nothing to train."""
        self.head_name = self._find_head(pair.teacher.shape[2])
        return nn.Identity()

    def _find_head(self, channels: int) -> str:
        """Dotted name of the teacher's classifier that reads so many channels."""
        teacher = self._distiller.teacher
        assert teacher is not None, f"{self.name} needs a teacher"
        linear = {name: layer for name, layer in teacher.named_modules() if isinstance(layer, nn.Linear)}
        classes = self._distiller.num_classes
        fits = [name for name, layer in linear.items() if tuple(layer.weight.shape) == (classes, channels)]
        if self.head is not None:
            fits = [name for name in fits if name == self.head]
        if not fits:
            shown = ", ".join(f"{name} ({x.in_features} to {x.out_features})" for name, x in linear.items()) or "none"
            raise ConfigError(
                f"{self.name}.head: {type(teacher).__name__} has no such linear layer from {channels} channels to "
                f"{classes} classes; it has {shown}; name the feature before it in teacher_taps"
            )
        return fits[-1]

    def compare(self, pair: Pair, adapter: nn.Module) -> Tensor:
        """Computes the term of the pair.

        Raises:
            ConfigError: If a feature has one position only, or the maps cannot be laid over each other.
        """
        student, teacher = (mean_over_time(x, pair.real)[0] for x in pair[:2])  # [B, C, H, W]
        if min(student.shape[-2:].numel(), teacher.shape[-2:].numel()) == 1:
            raise ConfigError("a map of one position says nothing about where; name features with positions or time")
        # Asked again at every step: a curriculum may have promoted another teacher meanwhile.
        head = self._distiller.teacher.get_submodule(self.head_name).weight  # type: ignore[union-attr]
        assert self._answers is not None
        seen = class_activation(teacher, head.detach(), self._answers)  # type: ignore[operator]
        return map_distillation(seen, student, self.temperature, self.normalise)

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term; a scalar."""
        assert step.teacher is not None, f"{self.name} needs a teacher"
        self._answers = self._answers_of(step.teacher.logits)
        return super().loss(step, adapter)


class NoiseSmoothedLogits(ReadoutStrategy):
    """NLD: logits distillation whose student side is smoothed by a little noise, on the read-outs `[B, K]`.

    `losses.temporal.noise_smoothed_distillation`. weight 1, tau 2, noise 0.1 are the paper's, which smooths the logits;
    its code smooths the probabilities (`mix: probabilities`).
    """

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        temperature: float = 2.0,
        noise: float = 0.1,
        mix: Literal["logits", "probabilities"] = "logits",
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            temperature: tau, softens both distributions; positive.
            noise: Share of the noise, in [0, 1].
            mix: What the noise smooths.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If a number is out of its range or a word unknown.
        """
        super().__init__(weight, name)
        self.temperature = positive(temperature, "NoiseSmoothedLogits.temperature")
        self.noise = not_negative(noise, "NoiseSmoothedLogits.noise", most=1.0)
        self.mix = one_of(mix, ("logits", "probabilities"), "NoiseSmoothedLogits.mix")

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term; a scalar."""
        return noise_smoothed_distillation(*self.readouts(step), self.temperature, self.noise, self.mix)
