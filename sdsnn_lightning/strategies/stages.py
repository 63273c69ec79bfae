"""The stages of a curriculum over time steps, and where in a run each of them ends."""

from dataclasses import dataclass
from itertools import accumulate

from sdsnn_lightning.errors import ConfigError


@dataclass
class Stage:
    """One stage of the curriculum.

    Attributes:
        step_ms: Duration of the student's time steps in milliseconds; longer steps are fewer steps.
        share: Length of the stage, relative to that of the other stages.
        teacher_step_ms: The teacher's time steps; those that it was trained with by default.
    """

    step_ms: float
    share: float = 1.0
    teacher_step_ms: float | None = None


def stage_ends(stages: list[Stage], epochs: int) -> list[int]:
    """The epoch at which every stage has ended, from their shares of the run.

    Args:
        stages: The stages.
        epochs: Epochs of the run.

    Returns:
        One number a stage, rising; the last is `epochs`.

    Raises:
        ConfigError: If the run is too short to give every stage an epoch.
    """
    if epochs < len(stages):
        raise ConfigError(
            f"trainer.max_epochs is {epochs} for the {len(stages)} stages of the curriculum; "
            "set it so that each has at least one epoch"
        )
    total = sum(stage.share for stage in stages)
    ends = [round(epochs * share / total) for share in accumulate(stage.share for stage in stages)]
    for index in range(len(ends)):  # a short stage is not rounded away, neither here nor by those after it
        least = (ends[index - 1] if index else 0) + 1
        ends[index] = min(max(ends[index], least), epochs - (len(ends) - 1 - index))
    return ends
