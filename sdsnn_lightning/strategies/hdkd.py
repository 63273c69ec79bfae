"""HDKD (El-Assiouti et al., arXiv 2407.07516): features of several stages, the later the heavier."""

from torch import Tensor, nn

from sdsnn_lightning.losses.features import Pair, TimeAlignment, mean_squared_error
from sdsnn_lightning.strategies.arguments import not_negative
from sdsnn_lightning.strategies.features import Taps
from sdsnn_lightning.strategies.kdsnn import FeatureDistillation
from sdsnn_lightning.strategies.schedules import Schedule


class WeightedStageDistillation(FeatureDistillation):
    """HDKD's feature term: `L = weight * sum_i i^power * MSE(S_i, F_i)`, i = 1, 2, ... from the earliest stage.

    The whole method is `(1 - a) CE + a tau^2 KL + lambda L` with a = 0.5, tau = 1, lambda = 10, power = 1 and three
    stages (the authors' code): give the distiller `alpha: 0.5`, `LogitDistillation` temperature 1 and weight 1, and
    this term weight `lambda / a = 20`. Their KL is a mean over classes, too, so it is K times weaker than ours. Without
    a distiller's alpha, weight 10.

    Not a method for spiking networks: there, student and teacher maps have the same shape. Ours: rates over time for
    the student's map, a 1x1 convolution where channels differ, and the teacher scaled to the student's range, since
    rates end at 1. The read-out serves for both of the method's heads.
    """

    stages = 3

    def __init__(
        self,
        weight: float | Schedule = 10.0,
        taps: Taps = None,
        teacher_taps: Taps = None,
        power: float = 1.0,
        rescale: bool = True,
        time: TimeAlignment = "mean",
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; the method's lambda.
            taps: The student's features, early stages first; by default the last three maps that both networks call
                the same, or their last three maps.
            teacher_taps: The teacher's.
            power: p, how fast the weight of later stages grows; 0 weighs all alike.
            rescale: Whether the teacher is scaled to the student's range.
            time: How the time axes meet.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If `power` is negative.
        """
        super().__init__(weight, taps, teacher_taps, rescale, time, name)
        self.power = not_negative(power, f"{self.name}.power")

    def stage_weight(self, number: int) -> float:
        """`i^power` with i = number + 1."""
        return (number + 1.0) ** self.power

    def compare(self, pair: Pair, adapter: nn.Module) -> Tensor:
        """Computes the mean squared error of one stage."""
        return mean_squared_error(*self.matched(pair, adapter))
