"""Similarity-preserving distillation (Tung and Mori, ICCV 2019, arXiv 1907.09682)."""

from torch import Tensor, nn

from sdsnn_lightning.losses.features import Pair, TimeAlignment
from sdsnn_lightning.losses.relations import similarity_preserving
from sdsnn_lightning.strategies.features import FeatureStrategy, Taps
from sdsnn_lightning.strategies.schedules import Schedule


class SimilarityPreserving(FeatureStrategy):
    """Samples that the teacher finds alike are alike to the student: `weight * ||G_student - G_teacher||_F^2 / B^2`.

    G holds the products of all pairs of samples in the batch, each row divided by its norm. Any widths, sizes and kinds
    of features go together, so this suits spiking students well; it needs batches of two or more. Weight 3000 is the
    usual one (general knowledge, not re-read in the paper). Ours: where the steps agree, samples are compared within
    every step and the mean over steps is taken; padded steps are silent.
    """

    def __init__(
        self,
        weight: float | Schedule = 3000.0,
        taps: Taps = None,
        teacher_taps: Taps = None,
        time: TimeAlignment = "auto",
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term.
            taps: The student's feature or features; by default its last map, or its last feature.
            teacher_taps: The teacher's.
            time: How the time axes meet.
            name: Names the term in logs and checkpoints. Defaults to the class name.
        """
        super().__init__(weight, taps, teacher_taps, time, name)

    def adapter(self, pair: Pair) -> nn.Module:
        """Nothing to train."""
        return nn.Identity()

    def compare(self, pair: Pair, adapter: nn.Module) -> Tensor:
        """Computes the term of one pair."""
        student, teacher = (x.flatten(2) for x in pair[:2])  # [S, B, F]
        if pair.real is not None:
            student, teacher = (x * pair.real.unsqueeze(-1) for x in (student, teacher))
        return similarity_preserving(student, teacher)
