"""Schedules: pure functions of training progress in [0, 1] that return a weight. Nothing to restore on resume."""

import math
from abc import ABC, abstractmethod

from sdsnn_lightning.errors import ConfigError


class Schedule(ABC):
    """A weight that changes with training progress.

    Example:
        >>> from sdsnn_lightning import Schedule
        >>> class Half(Schedule):
        ...     def __call__(self, progress):
        ...         return float(progress >= 0.5)
        >>> [Half()(progress) for progress in (0.0, 0.5, 1.0)]
        [0.0, 1.0, 1.0]
        >>> Linear(0.0, 2.0, begin=0.25, until=0.75)(0.5)
        1.0
    """

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """Returns the weight at `progress` in [0, 1]."""


class Linear(Schedule):
    """Straight line from `start` to `end` between two points of the run, constant outside them."""

    def __init__(self, start: float, end: float, begin: float = 0.0, until: float = 1.0) -> None:
        """Creates the schedule.

        Args:
            start: Weight up to `begin`.
            end: Weight from `until` on.
            begin: Progress in [0, 1] at which the ramp starts.
            until: Progress in [0, 1] at which the ramp ends; not before `begin`.

        Raises:
            ConfigError: If not `0 <= begin <= until <= 1`.
        """
        if not 0.0 <= begin <= until <= 1.0:
            raise ConfigError(f"a schedule needs 0 <= begin <= until <= 1, got begin={begin}, until={until}")
        self.start, self.end, self.begin, self.until = start, end, begin, until

    def _fraction(self, progress: float) -> float:
        """Position within the ramp, clamped to [0, 1]."""
        if progress >= self.until:
            return 1.0
        if progress <= self.begin:
            return 0.0
        return (progress - self.begin) / (self.until - self.begin)

    def __call__(self, progress: float) -> float:
        """Returns the weight at `progress` in [0, 1]."""
        return self.start + (self.end - self.start) * self._fraction(progress)


class Cosine(Linear):
    """Half a cosine from `start` to `end`: slow at both ends of the ramp, fast in the middle."""

    def __call__(self, progress: float) -> float:
        """Returns the weight at `progress` in [0, 1]."""
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * self._fraction(progress)))


class WarmupCosine(Schedule):
    """Straight line from 0 to 1, then half a cosine down to `end`: the usual course of a learning rate."""

    def __init__(self, warmup: float = 0.05, end: float = 0.0) -> None:
        """Creates the schedule.

        Args:
            warmup: Share of the run that the ramp takes, in [0, 1).
            end: Value at the end of the run.

        Raises:
            ConfigError: If `warmup` is out of its range.
        """
        if not 0.0 <= warmup < 1.0:
            raise ConfigError(f"WarmupCosine.warmup is {warmup}; set it to at least 0 and below 1")
        self.warmup, self.end = warmup, end

    def __call__(self, progress: float) -> float:
        """Returns the value at `progress` in [0, 1]."""
        if progress < self.warmup:
            return progress / self.warmup
        share = (progress - self.warmup) / (1.0 - self.warmup)
        return self.end + (1.0 - self.end) * 0.5 * (1.0 + math.cos(math.pi * share))


class Constant(Schedule):
    """The same weight throughout."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, progress: float) -> float:
        """Returns the weight, whatever `progress`."""
        return self.value


def weight_at(weight: float | Schedule, progress: float) -> float:
    """Evaluates a weight that may be a number or a schedule.

    Args:
        weight: A number, or a schedule to evaluate.
        progress: Training progress in [0, 1].

    Returns:
        The weight as a float.
    """
    return weight(progress) if isinstance(weight, Schedule) else float(weight)
