"""Attention transfer (Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928)."""

from torch import Tensor, nn

from sdsnn_lightning.losses.features import Pair, TimeAlignment
from sdsnn_lightning.losses.relations import attention_transfer
from sdsnn_lightning.strategies.features import FeatureStrategy, Taps
from sdsnn_lightning.strategies.schedules import Schedule


class AttentionTransfer(FeatureStrategy):
    """The student looks where the teacher looks: `weight * sum_l mean((A_student / |A_student| - A_teacher / |..|)^2)`.

    A is the sum of squares over channels at every position. Nothing is trained but the student, and widths need not
    agree. Weight 1000 is the usual one with the mean over positions (general knowledge, not re-read in the paper);
    four stages, and the treatment of time, are ours: maps are compared step by step where the steps agree, and averaged
    over time where they differ; where a network has vectors only, attention is over the time steps. A teacher with
    neither maps nor time is refused.
    """

    stages = 4
    positions_of = "both"

    def __init__(
        self,
        weight: float | Schedule = 1000.0,
        taps: Taps = None,
        teacher_taps: Taps = None,
        time: TimeAlignment = "auto",
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term.
            taps: The student's features; by default the last four maps that both networks call the same, or their last
                four maps, or one pair of features.
            teacher_taps: The teacher's.
            time: How the time axes meet.
            name: Names the term in logs and checkpoints. Defaults to the class name.
        """
        super().__init__(weight, taps, teacher_taps, time, name)

    def adapter(self, pair: Pair) -> nn.Module:
        """Nothing to train."""
        return nn.Identity()

    def compare(self, pair: Pair, adapter: nn.Module) -> Tensor:
        """Computes the term of one pair.

        Raises:
            ConfigError: If a feature has one position only.
        """
        return attention_transfer(*pair.folded())
