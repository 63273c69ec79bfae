"""Charts that compare runs, and the layers of one: curves, accuracy against energy, rate and energy by layer.

All are readable without colour: lines differ by marker and dashes, bars carry their number. They are narrow, so that a
telephone shows them at a readable size. Functions return a matplotlib `Figure`; nothing is shown.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sdsnn_lightning.pictures import HATCHES, blank_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 5.0
"""Of every chart in inches."""
# Dark enough for white paper, and told apart by most people with a colour deficiency (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#d55e00", "#000000", "#007a5a", "#9b4a86", "#8a6d00")
MARKERS = "osD^vPX*<>hpd8H1+x"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKS_A_LINE = 8
SMALL_SHARE = 0.005
"""Layers that take less of the energy are summed up in one bar."""
Cost = Literal["energy", "rate"]
COSTS: dict[Cost, str] = {
    "energy": "energy per sample, uJ (paper rule)",
    "rate": "firing rate, spikes per neuron and step",
}
"""What accuracy can be drawn against, and the name of the axis."""
Curve = tuple[NDArray, NDArray]
"""Positions `[N]` and values `[N]` of one run."""


def style(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the n-th line; none of them alone has to be seen."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
        "markersize": 5,
        "linewidth": 1.5,
    }


def _axes(height: float, entries: int) -> tuple["Figure", Any]:
    """A figure with one pair of axes, and room below for a legend of so many entries."""
    figure = blank_figure(WIDTH, height + 0.22 * ((entries + 1) // 2))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.85", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(figure: "Figure", axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels), default=0) <= 24 else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=3.5)


def mean_curve(curves: Sequence[Curve]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Mean over runs, at the positions that all of them have.

    Args:
        curves: One a run; positions rise.

    Returns:
        Positions, mean, smallest and largest value, each `[N]`.
    """
    shared = sorted(set.intersection(*(set(positions.tolist()) for positions, _ in curves)))
    rows = np.array([[dict(zip(p.tolist(), v, strict=True))[x] for x in shared] for p, v in curves], dtype=float)
    return np.array(shared), rows.mean(0), rows.min(0), rows.max(0)


def curve_chart(curves: Mapping[str, Sequence[Curve]], across: str, up: str, factor: float = 1.0) -> "Figure":
    """Draws curves over the training or over time steps: the mean over seeds in a band from the least to the most.

    Args:
        curves: By experiment, the curves of its runs.
        across: Title of the horizontal axis.
        up: Title of the vertical axis.
        factor: Values are drawn times this: 100 for percent.

    Returns:
        The figure.
    """
    figure, axes = _axes(3.0, len(curves))
    for index, (name, runs) in enumerate(curves.items()):
        positions, middle, least, most = mean_curve(runs)
        every = max(1, -(-len(positions) // MARKS_A_LINE))
        # Marks of two lines that run together should not hide each other.
        axes.plot(positions, factor * middle, label=name, markevery=(index % every, every), **style(index))
        if len(runs) > 1:
            axes.fill_between(positions, factor * least, factor * most, color=style(index)["color"], alpha=0.15, lw=0)
    axes.set(xlabel=across, ylabel=up)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(figure, axes)
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points that no other beats: none costs less without being worse, or is better without costing more.

    Args:
        points: Cost and score of each; a small cost and a large score are good.

    Returns:
        Positions of the undominated points, the cheapest first.
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def pareto_chart(points: Mapping[str, Sequence[tuple[float, float]]], cost: Cost = "energy") -> "Figure":
    """Draws accuracy against cost: the mean of every experiment, its runs behind, and the Pareto front of the means.

    Args:
        points: By experiment, cost and WAR in [0, 1] of its runs.
        cost: Which it is.

    Returns:
        The figure; the cost is on a logarithmic axis.
    """
    figure, axes = _axes(3.0, len(points) + 1)
    means = [tuple(np.mean(runs, axis=0)) for runs in points.values()]
    front = [means[index] for index in pareto_front(means)]
    if len(front) > 1:
        costs, scores = zip(*front, strict=True)
        line: dict[str, Any] = {"color": "0.45", "linestyle": "--", "linewidth": 1.2, "where": "post"}
        axes.step(costs, 100 * np.array(scores), label="Pareto front", **line)
    for index, (name, runs) in enumerate(points.items()):
        look = {**style(index), "linestyle": "none"}
        if len(runs) > 1:
            costs, scores = np.array(runs).T
            axes.plot(costs, 100 * scores, **{**look, "markersize": 4, "markerfacecolor": "none", "alpha": 0.7})
        axes.plot(means[index][0], 100 * means[index][1], label=name, **{**look, "markersize": 8})
    axes.set_xscale("log")
    known = [value for runs in points.values() for value, _ in runs]
    if max(known) < 20 * min(known):  # ticks at the powers of ten alone would be one or none
        from matplotlib.ticker import LogLocator

        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter("")
        axes.set_xlim(min(known) / 1.7, max(known) * 1.7)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel=COSTS[cost], ylabel="WAR, %")
    _legend(figure, axes)
    return figure


def layer_chart(layers: Sequence[Mapping[str, Any]]) -> "Figure | None":
    """Draws the firing rate of every layer of neurons, and the energy of every layer that costs some.

    Args:
        layers: As `details.layer_entries` returns them.

    Returns:
        The figure, or None where there is nothing to draw.
    """
    neurons = {row["name"]: 100 * row["rate"] for row in layers if row["op"] == "neuron"}
    energies = {row["name"]: row["energy_nJ"]["paper"] / 1000 for row in layers}
    total = sum(energies.values())
    shown = {name: energy for name, energy in energies.items() if energy > SMALL_SHARE * total}
    rest = [energy for name, energy in energies.items() if energy > 0 and name not in shown]
    if rest:
        shown[f"{len(rest)} smaller"] = sum(rest)
    titles = (
        (neurons, "firing rate, % of neurons a step"),
        (shown, f"energy per sample, uJ (paper rule); all {total:.3g}"),
    )
    panels = [(values, title) for values, title in titles if values]
    if not panels:
        return None
    heights = [len(values) + 2 for values, _ in panels]
    figure = blank_figure(WIDTH, 0.24 * sum(heights) + 0.3)
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    for index, (values, title) in enumerate(panels):
        axes = figure.add_subplot(grid[index])
        look: dict[str, Any] = {"color": "0.85", "edgecolor": "black", "hatch": HATCHES[1 + index], "linewidth": 0.7}
        rows = range(len(values))  # not the names: bars of names that are equal when shortened would lie on each other
        bars = axes.barh(rows, list(values.values()), height=0.7, **look)
        axes.set_yticks(rows, [_short(name) for name in values])
        axes.bar_label(bars, fmt=lambda value: f"{value:.3g}", padding=3, fontsize="small")
        axes.tick_params(axis="y", labelsize="small")
        axes.invert_yaxis()
        axes.set_xlim(0, 1.18 * max([*values.values(), 1e-9]))
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title, fontsize="medium", loc="left")
    return figure


def _short(name: str, most: int = 28) -> str:
    """A dotted name, shortened in front where it would take the room of the bars: layers differ at the end."""
    return name if len(name) <= most else f"...{name[3 - most :]}"


def prefix_name(name: str, causal: bool) -> str:
    """The name of a curve over time steps, which says so where it is not that of shorter runs."""
    return name if causal else f"{name} (looks ahead)"


def prefix_curve(prefixes: Mapping[str, Any]) -> Curve:
    """The curve of the entry `prefixes` of `details.json`: steps `[T]` from 1, and WAR in [0, 1]."""
    return np.arange(1, len(prefixes["WAR"]) + 1), np.array(prefixes["WAR"])


def prefix_chart(curves: Mapping[str, Sequence[Curve]]) -> "Figure":
    """Draws accuracy after every number of time steps.

    Args:
        curves: By experiment, those of its runs.

    Returns:
        The figure.
    """
    return curve_chart(curves, "time steps t", "WAR after t steps, %", 100)


def detail_charts(details: Mapping[str, Any]) -> dict[str, "Figure | None"]:
    """The charts of one tested run, by the name of their file.

    Args:
        details: Contents of its `details.json`.

    Returns:
        `layers` and `prefixes`, as far as there is something to draw.
    """
    charts: dict[str, Figure | None] = {}
    if details.get("layers"):
        charts["layers"] = layer_chart(details["layers"])
    if len(details.get("prefixes", {}).get("WAR", [])) > 1:
        prefixes = details["prefixes"]
        charts["prefixes"] = prefix_chart({prefix_name("test", prefixes["causal"]): [prefix_curve(prefixes)]})
    return charts
