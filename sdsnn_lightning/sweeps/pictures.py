"""The pictures of a sweep: the objective against each parameter, and accuracy against energy with its Pareto front.

Readable without colour: filled circles ran to their end, hollow ones were stopped early, the star is the best.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdsnn_lightning.charts import pareto_front
from sdsnn_lightning.sweeps.records import Record
from sdsnn_lightning.sweeps.space import Sweep
from sdsnn_lightning.sweeps.table import short_names, shown, winner
from sdsnn_lightning.whole import whole_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
"""Panels beside each other."""


def _panels(count: int) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(0.8 + 3.4 * columns, 0.4 + 3.0 * rows), layout="constrained", dpi=120)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in panels[count:]:
        unused.remove()
    return figure, panels[:count]


def objective_picture(records: Sequence[Record], sweep: Sweep) -> "Figure | None":
    """Draws the metric against every parameter, one panel each.

    Args:
        records: The trials; those without a value are left out.
        sweep: For parameters, metric and mode.

    Returns:
        The figure, None where no trial has a value. A loguniform parameter has a logarithmic axis; values that are not
        numbers stand side by side.
    """
    rated = [record for record in records if record.value(sweep.mode) is not None]
    if not rated:
        return None
    best = winner(rated, sweep.mode)
    values = [value for record in rated if (value := record.value(sweep.mode)) is not None]
    figure, panels = _panels(len(sweep.space))
    for axes, (key, entry), name in zip(panels, sweep.space.items(), short_names(list(sweep.space)), strict=True):
        settings: list[Any] = [record.settings[key] for record in rated]
        if not all(isinstance(setting, int | float) and not isinstance(setting, bool) for setting in settings):
            labels = [shown(value) for value in entry.values]
            settings = [labels.index(shown(setting)) for setting in settings]
            axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
        elif entry.kind == "loguniform":
            axes.set_xscale("log")
        for x, y, record in zip(settings, values, rated, strict=True):
            axes.plot(x, y, "o", color="black", markerfacecolor="black" if record.state == "done" else "white")
            if record is best:
                axes.plot(x, y, "*", color="black", markerfacecolor="white", markersize=16)
        axes.set(xlabel=name, ylabel=sweep.metric)
        axes.grid(color="0.9")
    return figure


def pareto_picture(records: Sequence[Record], sweep: Sweep) -> "Figure | None":
    """Draws test accuracy (WAR) against energy a sample, each trial with its number, and the Pareto front as a line.

    Args:
        records: The trials; those without a tested accuracy and energy are left out.
        sweep: For the mode.

    Returns:
        The figure, None where fewer than two trials have both.
    """
    tested = [record for record in records if record.energy is not None and "WAR" in record.test]
    if len(tested) < 2:
        return None
    points = [(float(record.energy or 0), 100 * float(record.test["WAR"])) for record in tested]
    figure, (axes,) = _panels(1)
    figure.set_size_inches(5.5, 4)
    front = pareto_front(points)
    axes.plot(*zip(*(points[i] for i in front), strict=True), color="0.5", drawstyle="steps-post", linewidth=1)
    for place, (point, record) in enumerate(zip(points, tested, strict=True)):
        axes.plot(*point, "o", color="black", markerfacecolor="black" if place in front else "white")
        axes.annotate(str(record.index), point, xytext=(5, 4), textcoords="offset points", fontsize="small")
    axes.set(xlabel="energy a sample, uJ (paper rule)", ylabel="test WAR, percent")
    axes.set_title("filled: no other trial is both cheaper and better", fontsize="medium")
    axes.grid(color="0.9")
    return figure


def save_pictures(folder: Path, records: Sequence[Record], sweep: Sweep) -> list[Path]:
    """Saves `objective.png` and `pareto.png`, as far as there is something to draw.

    Args:
        folder: Of the sweep.
        records: The trials.
        sweep: As its YAML states it.

    Returns:
        The files written.
    """
    figures = {"objective": objective_picture(records, sweep), "pareto": pareto_picture(records, sweep)}
    paths = []
    for name, figure in figures.items():
        if figure is not None:
            paths.append(folder / f"{name}.png")
            with whole_path(paths[-1]) as aside:
                figure.savefig(aside, format="png")
    return paths
