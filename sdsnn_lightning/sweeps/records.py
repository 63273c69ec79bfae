"""What is known of a trial, in `trial.json` beside its output, so that a killed sweep goes on where it was."""

import csv
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sdsnn_lightning.errors import DataError
from sdsnn_lightning.whole import write_text

FINISHED = ("done", "stopped", "failed")
"""A sweep that is started again does not run these trials again."""


@dataclass
class Record:
    """One trial.

    Attributes:
        index: Its number in the sweep.
        settings: Its values by configuration key.
        command: As a person would type it.
        folder: Of its run: configuration, checkpoints, metrics.
        threads: Its OMP_NUM_THREADS, on which rounding depends.
        state: `waiting`, `running`, `fitted` (to be tested), `interrupted`, or one of `FINISHED`.
        history: Pairs of epoch (from 0) and metric, in order.
        seconds: That its processes ran.
        error: The last line of one that failed.
        test: Scores of the test by name, if it was run.
    """

    index: int
    settings: dict[str, Any]
    command: str
    folder: str
    threads: str = "1"
    state: str = "waiting"
    history: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""
    test: dict[str, Any] = field(default_factory=dict)

    def value(self, mode: str) -> float | None:
        """The metric at the best epoch; None without a finite one."""
        known = [value for _, value in self.history if math.isfinite(value)]
        return None if not known else max(known) if mode == "max" else min(known)

    @property
    def energy(self) -> float | None:
        """Energy of a sample by the paper rule, in microjoules; None where it was not measured."""
        nanojoules = self.test.get("energy/paper_nJ")
        return None if nanojoules is None else float(nanojoules) / 1000

    def finished(self, test: bool) -> bool:
        """Whether there is nothing left to run, the test included where it is wanted."""
        return self.state in FINISHED and not (test and self.state == "done" and not self.test)


def write_record(folder: Path, record: Record) -> None:
    """Writes `trial.json` into a trial's folder."""
    write_text(folder / "trial.json", json.dumps(asdict(record), indent=2) + "\n")


def read_record(folder: Path, fresh: Record) -> Record:
    """Reads a trial's record.

    Args:
        folder: The trial's folder.
        fresh: What is returned where there is none.

    Returns:
        The record.

    Raises:
        DataError: If the file is broken.
    """
    path = folder / "trial.json"
    if not path.is_file():
        return fresh
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{**content, "history": [(int(epoch), float(value)) for epoch, value in content["history"]]})
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{path} is not a trial's record; delete {folder} to run the trial again") from None


def epochs_in(metrics: Path, metric: str) -> list[tuple[int, float]]:
    """Reads how a metric went from a run's `metrics.csv`, which may be growing.

    Args:
        metrics: The file.
        metric: The column.

    Returns:
        Pairs of epoch and value, in order; the last value of an epoch with several. Empty without file or column.
    """
    if not metrics.is_file():
        return []
    text = metrics.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()  # a line without its end is still being written
    found: dict[int, float] = {}
    for row in csv.DictReader(lines):
        if row.get(metric) and row.get("epoch"):
            try:
                found[int(row["epoch"])] = float(row[metric])
            except ValueError:
                continue
    return sorted(found.items())


def last_line(output: Path, start: int = 0) -> str:
    """What a command said last, its error if it named one.

    Args:
        output: The file with its output.
        start: Where the command's output begins, in bytes.

    Returns:
        One line.
    """
    if not output.is_file():
        return ""
    with output.open("rb") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("error: ")]
    return (named or lines or [""])[-1].removeprefix("error: ")
