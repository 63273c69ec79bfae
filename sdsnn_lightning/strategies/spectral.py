"""Spectral feature distillation: the student's features change over time as the teacher's do."""

from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.features import Pair, as_maps, mean_squared_error, same_size
from sdsnn_lightning.losses.spectral import Transform, common_bands, time_spectrum
from sdsnn_lightning.strategies.arguments import one_of
from sdsnn_lightning.strategies.features import FeatureStrategy, Taps, real_mask
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.types import Output, View


class SpectralDistillation(FeatureStrategy):
    """Mean squared difference of the lowest frequencies over time of a student's and a teacher's feature.

    `mean((A X_student - X_teacher)^2)` with X = `losses.spectral.time_spectrum` of features `[T, B, ...]` and A a 1x1
    convolution into the teacher's channels where they differ. Both numbers of steps may differ: the frequencies that
    both can tell apart are compared. A teacher without time has the mean over time alone.

    After the idea of Collaborative Distillation to compare in the frequency domain; we had no access to its equations,
    so transform, normalisation, bands and weight are ours.
    """

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        taps: Taps = None,
        teacher_taps: Taps = None,
        transform: Transform = "dct",
        bands: int | None = None,
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            taps: The student's feature; its last map by default.
            teacher_taps: The teacher's.
            transform: `dct`, cosine transform, or `fft`, Fourier transform.
            bands: How many of the lowest frequencies count; all that both can tell apart where None.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If `bands` is less than 1 or the transform unknown.
        """
        super().__init__(weight, taps, teacher_taps, "auto", name)
        self.transform = one_of(transform, ("dct", "fft"), "SpectralDistillation.transform")
        if bands is not None and bands < 1:
            raise ConfigError(f"SpectralDistillation.bands is {bands}; set it to at least 1, or leave it out")
        self.bands = bands

    def adapter(self, pair: Pair) -> nn.Module:
        """A 1x1 convolution without bias where the channels differ: it can be exchanged with the transform."""
        own, other = pair.student.shape[2], pair.teacher.shape[2]
        return nn.Identity() if own == other else nn.Conv2d(own, other, 1, bias=False)

    def compare(self, pair: Pair, adapter: nn.Module) -> Tensor:
        """Computes the term of a pair of spectra `[F, B, C, H, W]`."""
        student, teacher = pair.folded()
        return mean_squared_error(*same_size(adapter(student), teacher))

    def _align(self, student: Output, teacher: Output, names: tuple[str, str], own: View, other: View) -> Pair:
        """The spectra of both features in place of their time axes; padded steps count as silent."""
        try:
            maps = as_maps(student.features[names[0]], student.logits.ndim == 3)
            targets = as_maps(teacher.features[names[1]].detach(), teacher.logits.ndim == 3)
        except ConfigError as error:
            raise ConfigError(f"{self.name}, student '{names[0]}' and teacher '{names[1]}': {error}") from error
        bands = common_bands(len(maps), len(targets), self.transform, self.bands)
        spectra = [
            time_spectrum(_silenced(x, view), self.transform, bands) for x, view in ((maps, own), (targets, other))
        ]
        return Pair(*spectra)


def _silenced(maps: Tensor, view: View) -> Tensor:
    """Maps `[T, B, C, H, W]`, zero on padded steps."""
    real = real_mask(view, len(maps))
    return maps if real is None else maps * real[:, :, None, None, None]
