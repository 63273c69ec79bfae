"""MGD (Yang et al., ECCV 2022, arXiv 2205.01529): masked generative distillation."""

from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.bkd import MaskUnit
from sdsnn_lightning.losses.features import Pair, TimeAlignment
from sdsnn_lightning.strategies.bkd import BlurredFeatureDistillation
from sdsnn_lightning.strategies.features import Taps
from sdsnn_lightning.strategies.schedules import Schedule


class MaskedGenerativeDistillation(BlurredFeatureDistillation):
    """The teacher's whole feature is generated from a student's feature with positions masked.

    `L = weight * ||G(M * align(S)) - F||_F^2 / N` with M over positions, `[N, 1, H, W]`, shared by all channels. BKDSNN
    took over the form; it masks channels and averages over time.

    A student without maps is masked in time: its steps are the positions, which G restores from their neighbours, and
    the finer time is averaged to the coarser. That, and comparing map students step by step where the steps agree, is
    ours: the method has no time. Weight 7e-5 and ratio 0.5 are the published defaults for classification as commonly
    quoted, not re-read in the paper; the authors' classification code masks channels with 0.15 (`mask: channel`).
    """

    positions_of = "student"

    def __init__(
        self,
        weight: float | Schedule = 7e-5,
        taps: Taps = None,
        teacher_taps: Taps = None,
        ratio: float = 0.5,
        mask: MaskUnit = "pixel",
        time: TimeAlignment = "auto",
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term.
            taps: The student's feature or features; by default its last map, or its last feature.
            teacher_taps: The teacher's.
            ratio: lambda, the share of positions set to zero, in [0, 1].
            mask: What is blanked as a whole.
            time: How the time axes meet.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If an argument is out of its range.
        """
        super().__init__(weight, taps, teacher_taps, ratio, mask, time=time, name=name)

    def compare(self, pair: Pair, adapter: nn.Module) -> Tensor:
        """Computes the term of one pair.

        Raises:
            ConfigError: If positions are masked and the student's feature has one only.
        """
        if self.mask == "pixel" and pair.student.shape[-2:].numel() == 1:
            raise ConfigError(
                "masking the only position leaves nothing to generate from; "
                "name a map, use time: positions with several steps, or mask: channel"
            )
        return super().compare(pair, adapter)
