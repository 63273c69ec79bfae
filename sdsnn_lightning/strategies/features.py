"""The base of every strategy that compares named features of student and teacher."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.features import Pair, TimeAlignment, align_time, as_maps
from sdsnn_lightning.strategies.base import Strategy
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.types import Output, Step, View

if TYPE_CHECKING:
    from sdsnn_lightning.distiller import Distiller

Taps = str | list[str] | None
"""Names of features, or None for the strategy's own choice; see `choose_taps`."""


class FeatureStrategy(Strategy):
    """A strategy whose term is a sum over pairs of tapped features; a subclass defines `compare`.

    **Which features.** `taps` names the student's, `teacher_taps` the teacher's (the same names where left out).
    Without names `choose_taps` decides by what the networks have, so that an overlay fits any experiment.

    **Time.** `time` says how the time axes meet: `mean` averages each over its own time (padding left out where the
    view has a `mask`); `step` compares equal steps, a teacher without time at every step; `auto` is `step` where the
    numbers agree and `mean` where they differ; `positions` makes the time steps of vectors the positions of a map. So a
    spiking teacher of 16 steps, a network per frame and one on the mean frame all teach a student of 4 steps.

    **Space.** Vectors `[T, B, D]` are maps of one position, sequences `[T, B, D, L]` maps of one row. The finer map is
    averaged down to the coarser; a map that meets a vector, to its mean.

    Names, and features that do not fit, are refused before training starts, by a trial on one zero sample.
    """

    stages: ClassVar[int] = 1
    """How many taps to choose at most where none are named."""
    positions_of: ClassVar[Literal["nobody", "student", "both"]] = "nobody"
    """Whose feature must have positions: with `time: auto`, vectors then take their time steps for positions."""

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        taps: Taps = None,
        teacher_taps: Taps = None,
        time: TimeAlignment = "auto",
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            taps: Name or names of the student's features.
            teacher_taps: Name or names of the teacher's, as many; the same as `taps` where None.
            time: How the time axes meet.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If `time` is unknown, or the numbers of taps differ.
        """
        super().__init__(weight, name)
        if time not in ("auto", "mean", "step", "positions"):
            raise ConfigError(f"{self.name}.time: {time!r} is none of auto, mean, step and positions")
        self.taps, self.teacher_taps, self.time = _listed(taps), _listed(teacher_taps), time
        if self.teacher_taps is not None and len(self.teacher_taps) != len(self.taps or []):
            raise ConfigError(
                f"{self.name}.teacher_taps names {len(self.teacher_taps)} features and taps {len(self.taps or [])}; "
                "name as many of both"
            )
        self.pairs: list[tuple[str, str]] = []

    def build(self, distiller: "Distiller") -> nn.Module | None:
        """Settles the taps and makes one adapter for each pair, then tries the term on one zero sample.

        Raises:
            ConfigError: If a network lacks a named feature, or a pair cannot be compared.
        """
        student, teacher = distiller.example_outputs()
        assert teacher is not None, f"{self.name} needs a teacher"
        for network, output, names, key in (
            (distiller.student, student, self.taps, "taps"),
            (distiller.teacher, teacher, self.teacher_taps or self.taps, "teacher_taps"),
        ):
            have = ", ".join(output.features) or "none"
            missing = [name for name in names or [] if name not in output.features]
            if missing or not output.features:
                what = f"no feature '{missing[0]}'" if missing else "no features"
                raise ConfigError(f"{self.name}.{key}: {type(network).__name__} has {what}; it has {have}")
        self.pairs = choose_taps(student, teacher, self.stages)
        if self.taps is not None:
            self.pairs = list(zip(self.taps, self.teacher_taps or self.taps, strict=True))
        aligned = [self._align(student, teacher, pair, {}, {}) for pair in self.pairs]
        adapter = nn.ModuleList(self.adapter(pair) for pair in aligned).to(aligned[0].student.dtype)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for number, pair in enumerate(aligned):
                self._compare(number, pair, adapter[number])
        return adapter

    def adapter(self, pair: Pair) -> nn.Module:
        """Makes the trainable part for one pair of features; shapes are those of one sample.

        Args:
            pair: The two features, aligned in time.

        Returns:
            A 1x1 convolution into the teacher's channels where they differ, else nothing to train, as in the BKDSNN
            code. Convolving and averaging over positions or time can be exchanged, so its place does not matter.
        """
        own, other = pair.student.shape[2], pair.teacher.shape[2]
        return nn.Identity() if own == other else nn.Conv2d(own, other, 1)

    def compare(self, pair: Pair, adapter: nn.Module) -> Tensor:
        """Computes the term of one pair of features.

        Args:
            pair: Features aligned in time, the teacher's without gradient.
            adapter: What `adapter` returned for this pair.

        Returns:
            A scalar tensor.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no compare(pair, adapter)")

    def stage_weight(self, number: int) -> float:
        """The weight of pair `number`, counted from 0, in the sum."""
        return 1.0

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Sums the terms of all pairs."""
        assert step.teacher is not None, f"{self.name} needs a teacher"
        assert isinstance(adapter, nn.ModuleList)
        total = torch.zeros((), device=step.target.device)
        for number, names in enumerate(self.pairs):
            pair = self._align(step.student, step.teacher, names, step.batch.student, step.batch.teacher)
            total = total + self.stage_weight(number) * self._compare(number, pair, adapter[number])
        return total

    def _compare(self, number: int, pair: Pair, adapter: nn.Module) -> Tensor:
        """One pair's term; what cannot be compared is refused with the names."""
        try:
            return self.compare(pair, adapter)
        except ConfigError as error:
            own, other = self.pairs[number]
            raise ConfigError(f"{self.name}, student '{own}' and teacher '{other}': {error}") from error

    def _align(self, student: Output, teacher: Output, names: tuple[str, str], own: View, other: View) -> Pair:
        """Both features as maps with one time axis; the teacher's without gradient."""
        try:
            maps = as_maps(student.features[names[0]], student.logits.ndim == 3)
            targets = as_maps(teacher.features[names[1]].detach(), teacher.logits.ndim == 3)
            flat = [x.shape[-2:].numel() == 1 for x in (maps, targets)]
            lacking = {"nobody": False, "student": flat[0], "both": any(flat)}[self.positions_of]
            how = "positions" if self.time == "auto" and lacking else self.time
            return align_time(maps, targets, how, real_mask(own, len(maps)), real_mask(other, len(targets)))
        except ConfigError as error:
            raise ConfigError(f"{self.name}, student '{names[0]}' and teacher '{names[1]}': {error}") from error


def choose_taps(student: Output, teacher: Output, count: int) -> list[tuple[str, str]]:
    """Chooses pairs of features where a strategy names none.

    One pair: each network's last map, or its last feature where it has no map ("the feature right before the last
    layer"). Several: the last maps of one name in both networks; else the last maps of both, paired from the end; else
    the last features of one name in both; else one pair as above.

    Args:
        student: The student's output on an example.
        teacher: The teacher's output on an example.
        count: How many pairs at most.

    Returns:
        Names in the student and in the teacher, early layers first; at least one pair.
    """
    maps = [_maps(student), _maps(teacher)]
    last = [m or list(output.features) for m, output in zip(maps, (student, teacher), strict=True)]
    if count == 1:
        return [(last[0][-1], last[1][-1])]
    if all(maps):
        common = [name for name in maps[0] if name in maps[1]]
        if common:
            return [(name, name) for name in common[-count:]]
        length = min(count, *map(len, maps))
        return list(zip(maps[0][-length:], maps[1][-length:], strict=True))
    common = [name for name in student.features if name in teacher.features]
    return [(name, name) for name in common[-count:]] or [(last[0][-1], last[1][-1])]


def _maps(output: Output) -> list[str]:
    """Names of the features with more than one position."""
    leading = output.logits.ndim
    return [name for name, x in output.features.items() if x.shape[leading:].numel() > 1]


def real_mask(view: View, steps: int) -> Tensor | None:
    """Which steps are not padding, by the view's `mask` `[B, T]`.

    Args:
        view: Modalities by name.
        steps: T of the feature or logits that the mask is wanted for.

    Returns:
        True on real steps `[T, B]`; None where the view has no mask of this length.
    """
    mask = view.get("mask")
    return None if mask is None or mask.shape[1] != steps else mask.ne(0).mT


def _listed(taps: str | Sequence[str] | None) -> list[str] | None:
    """One name, several or none, as a list or None."""
    return [taps] if isinstance(taps, str) else list(taps) if taps else None
