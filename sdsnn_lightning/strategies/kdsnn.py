"""KDSNN (Xu et al., CVPR 2023, arXiv 2304.05627): features of an artificial network teach a spiking one."""

from torch import Tensor, nn

from sdsnn_lightning.losses.features import Pair, TimeAlignment, rescale_range, same_size, squared_error
from sdsnn_lightning.strategies.features import FeatureStrategy, Taps
from sdsnn_lightning.strategies.schedules import Schedule


class FeatureDistillation(FeatureStrategy):
    """The feature half of KDSNN: the student's firing rates, aligned by a 1x1 convolution, equal the teacher's feature.

    `L = weight * ||align(mean_t S_t) - F||_F^2 / B`. The response half is `LogitDistillation`; name both for the whole
    method. The form and the weight (2e-3 in the CIFAR10-DVS script, 7e-5 in the class) are those of the baseline in
    BKDSNN's code: no code of the paper itself was found. The alignment is made only where channels differ.
    """

    def __init__(
        self,
        weight: float | Schedule = 2e-3,
        taps: Taps = None,
        teacher_taps: Taps = None,
        rescale: bool = False,
        time: TimeAlignment = "mean",
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term. The sum over channels and positions makes it depend on the tap.
            taps: The student's feature or features; by default its last map, or its last feature.
            teacher_taps: The teacher's.
            rescale: Whether the teacher is scaled to the student's range (ours).
            time: How the time axes meet.
            name: Names the term in logs and checkpoints. Defaults to the class name.
        """
        super().__init__(weight, taps, teacher_taps, time, name)
        self.rescale = rescale

    def compare(self, pair: Pair, adapter: nn.Module) -> Tensor:
        """Computes the term of one pair."""
        return squared_error(*self.matched(pair, adapter))

    def matched(self, pair: Pair, adapter: nn.Module) -> tuple[Tensor, Tensor]:
        """Student and teacher `[N, C, H, W]` of one pair in the same channels, size and, if asked for, range."""
        student, teacher = pair.folded()
        student, teacher = same_size(adapter(student), teacher)
        return student, rescale_range(teacher, student) if self.rescale else teacher
