"""The trials of a sweep as a table: live in the terminal while they run, sorted at the end, and as a CSV file."""

import csv
import io
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdsnn_lightning.sweeps.records import FINISHED, Record
from sdsnn_lightning.sweeps.space import Sweep

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

SHOWN = 20
"""Rows of the live table."""


def short_names(keys: Sequence[str]) -> list[str]:
    """The shortest endings of dotted keys that tell them apart: `alpha`, or `student.init_args.size`."""
    names = []
    for key in keys:
        parts = key.split(".")
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[-length:])
            if sum(other == name or other.endswith("." + name) for other in keys) == 1:
                break
        names.append(name)
    return names


def shown(value: Any) -> str:
    """A setting or a score, briefly."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def ranked(records: Sequence[Record], mode: str) -> list[Record]:
    """Sorts trials: finished ones from the best to the worst, then those stopped early, then the rest."""
    order = {"done": 0, "stopped": 1}

    def place(record: Record) -> tuple[int, float, int]:
        value = record.value(mode)
        worse = 0.0 if value is None else (-value if mode == "max" else value)
        return 2 * order.get(record.state, 2) + (value is None), worse, record.index

    return sorted(records, key=place)


def winner(records: Sequence[Record], mode: str) -> Record | None:
    """The best of the trials that ran to their end, or None."""
    done = [record for record in ranked(records, mode) if record.state == "done" and record.value(mode) is not None]
    return done[0] if done else None


def csv_text(records: Sequence[Record], sweep: Sweep) -> str:
    """All trials, sorted, as CSV: settings by their whole keys, state, value, epochs, test scores, error, folder."""
    tests = sorted({name for record in records for name in record.test if name in ("WAR", "UAR")})
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    header = ["trial", *sweep.space, "state", sweep.metric, "epochs", *(f"test/{name}" for name in tests)]
    writer.writerow([*header, "energy_uJ", "seconds", "error", "folder"])
    for record in ranked(records, sweep.mode):
        row = [record.index, *(record.settings[key] for key in sweep.space), record.state, record.value(sweep.mode)]
        scores = [record.test.get(name) for name in tests]
        cells = [
            *row,
            len(record.history),
            *scores,
            record.energy,
            round(record.seconds, 1),
            record.error,
            record.folder,
        ]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return file.getvalue()


def table(records: Sequence[Record], sweep: Sweep, epochs: Sequence[int], least: int = 0) -> "Table":
    """Draws the trials in the order given.

    Args:
        records: The rows.
        sweep: For the columns.
        epochs: Length of each trial, by index.
        least: Width of the table at least.

    Returns:
        The table.
    """
    from rich import box
    from rich.table import Table

    tested = any(record.test for record in records)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, min_width=least or None)
    scores = ["test WAR %", "energy uJ"] if tested else []
    for name in ("trial", *short_names(list(sweep.space)), "state", "epoch", sweep.metric, *scores, "s"):
        drawn.add_column(name, justify="left" if name == "state" else "right", no_wrap=name != "state")
    for record in records:
        value, accuracy, energy = record.value(sweep.mode), record.test.get("WAR"), record.energy
        length = epochs[record.index] or "?"
        cells = [str(record.index), *(shown(record.settings[key]) for key in sweep.space)]
        cells += [record.state, f"{len(record.history)}/{length}", "-" if value is None else f"{value:.4f}"]
        if tested:
            cells += ["-" if accuracy is None else f"{100 * accuracy:.1f}", "-" if energy is None else f"{energy:.3g}"]
        drawn.add_row(*cells, f"{record.seconds:.0f}" if record.seconds else "-")
    return drawn


class Board:
    """Follows the trials of a running sweep: a live table in a terminal, one line an event elsewhere."""

    def __init__(self, sweep: Sweep, records: list[Record], epochs: Sequence[int]) -> None:
        """Creates the board.

        Args:
            sweep: For the columns.
            records: One a trial, by index; whoever calls keeps them up to date.
            epochs: Length of each trial, by index.
        """
        self.sweep, self.records, self.epochs = sweep, records, epochs
        self.began = time.monotonic()
        self.finished_before = sum(record.state in FINISHED for record in records)
        self.live: Any = None

    def __enter__(self) -> "Board":
        """Starts the live table where there is a terminal."""
        if sys.stdout.isatty():
            from rich.live import Live

            self.live = Live(get_renderable=self.draw, refresh_per_second=2, transient=True)
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Takes the live table away."""
        if self.live is not None:
            self.live.stop()

    def progress(self) -> str:
        """One line: how many trials there are of each state, how long it took and, about, will take."""
        states = [record.state for record in self.records]
        finished = sum(state in FINISHED for state in states)
        passed = time.monotonic() - self.began
        parts = [f"{finished} of {len(states)} trials finished"]
        parts += [f"{states.count(state)} {state}" for state in ("running", "stopped", "failed") if state in states]
        text = ", ".join(parts) + f"; {duration(passed)}"
        new = finished - self.finished_before
        if new and finished < len(states):
            text += f", about {duration(passed / new * (len(states) - finished))} more"
        return text

    def draw(self) -> "Group":
        """The live picture: running trials first, then the best, then the others."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar

        order = ranked(self.records, self.sweep.mode)
        rows = sorted(order, key=lambda record: (record.state != "running", record.state == "waiting"))
        finished = sum(record.state in FINISHED for record in rows)
        hidden = [f"... and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
        bar = ProgressBar(total=len(rows), completed=finished, width=40)
        return Group(table(rows[:SHOWN], self.sweep, self.epochs), *hidden, bar, f" {self.progress()}")

    def say(self, index: int) -> None:
        """Tells of a trial that has ended, where no live table does."""
        if self.live is None:
            record = self.records[index]
            value = record.value(self.sweep.mode)
            parts = [f"trial {index}: {record.state}"]
            if value is not None:
                parts.append(f"{self.sweep.metric} {value:.4f}")
            if record.error:
                parts.append(record.error)
            print(f"{', '.join(parts)} ({self.progress()})", flush=True)


def duration(seconds: float) -> str:
    """A time as `42 s`, `7 min` or `3.1 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
