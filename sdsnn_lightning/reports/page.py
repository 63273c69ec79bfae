"""The page of `sdsnn report`: one HTML file with everything in it, which asks nothing of the network."""

import base64
import io
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sdsnn_lightning.charts import (
    Cost,
    Curve,
    curve_chart,
    layer_chart,
    pareto_chart,
    pareto_front,
    prefix_chart,
    prefix_curve,
    prefix_name,
)
from sdsnn_lightning.details import raster
from sdsnn_lightning.pictures import confusion_picture, raster_picture, recall_bars
from sdsnn_lightning.progress import watched
from sdsnn_lightning.reports.collect import Group
from sdsnn_lightning.reports.settings import differences
from sdsnn_lightning.reports.table import COLUMNS, NOTES, cell, cells, command, notes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = (("val/UAR", "UAR in validation, %", 100), ("val/WAR", "WAR in validation, %", 100),
          ("val/task", "cross-entropy in validation", 1), ("train/loss", "training loss", 1),
          ("val/firing_rate/total", "firing rate in validation, %", 100))  # fmt: skip
PNG_SCALE = 0.8
"""PNG pictures are drawn at 120 dots per inch, a page has 96."""


class Picture(NamedTuple):
    """A picture inside the page.

    Attributes:
        title: Heading, and what a screen reader says.
        uri: The picture itself as a `data:` URI.
        width: Natural width in CSS pixels.
        note: Said below.
    """

    title: str
    uri: str
    width: int
    note: str = ""


def vector(figure: "Figure", title: str, note: str = "") -> Picture:
    """A figure as SVG; it takes its ink from the page's style by inversion, so its paper is transparent."""
    import matplotlib

    buffer = io.BytesIO()
    # Without a date and with one salt the same runs give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "sdsnn"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    content = base64.b64encode(buffer.getvalue()).decode()
    return Picture(title, f"data:image/svg+xml;base64,{content}", round(96 * figure.get_figwidth()), note)


def bitmap(path: Path, title: str, note: str = "") -> Picture:
    """A PNG file of a run folder."""
    from PIL import Image

    with Image.open(path) as image:
        width = round(PNG_SCALE * image.width)
    return Picture(title, f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}", width, note)


def comparison(groups: Sequence[Group]) -> Iterator[Picture]:
    """Charts over experiments: learning curves, accuracy over time steps, and accuracy against energy by data set."""
    for key, title, factor in CURVES:
        curves = {group.label: [run.curves[key] for run in group.runs if key in run.curves] for group in groups}
        curves = {label: of_runs for label, of_runs in curves.items() if of_runs}
        if curves:
            yield vector(curve_chart(curves, "epoch", title, factor), title)
    prefixes = prefix_curves(groups)
    if prefixes:
        note = "In a network that looks ahead, the first t steps have seen more than t." if any(
            "(looks ahead)" in name for name in prefixes) else ""  # fmt: skip
        yield vector(prefix_chart(prefixes), "Accuracy after every number of time steps", note)
    for source in dict.fromkeys(group.source for group in groups):
        points = cost_points([group for group in groups if group.source == source])
        if len(points) > 1:  # one experiment by itself is no comparison
            means = [tuple(np.mean(runs, axis=0)) for runs in points.values()]
            best = [list(points)[index] for index in pareto_front(means)]
            yield vector(pareto_chart(points), f"Accuracy and energy: {source}", f"On the front: {', '.join(best)}.")


def prefix_curves(groups: Sequence[Group]) -> dict[str, list[Curve]]:
    """Accuracy over time steps by experiment, of its runs with more than one step."""
    curves = {}
    for group in groups:
        entries = [run.details["prefixes"] for run in group.runs if (run.steps or 0) > 1]
        if entries:
            name = prefix_name(group.label, all(entry["causal"] for entry in entries))
            curves[name] = [prefix_curve(entry) for entry in entries]
    return curves


def cost_points(groups: Sequence[Group], cost: Cost = "energy") -> dict[str, list[tuple[float, float]]]:
    """Energy in microjoules, or firing rate, and WAR of the runs that have both, by experiment."""
    points = {g.label: [(getattr(run, cost), run.test["WAR"]) for run in g.runs if getattr(run, cost)] for g in groups}
    return {label: runs for label, runs in points.items() if runs}


def mean_layers(group: Group) -> list[dict[str, Any]]:
    """The layers of an experiment's network: rate, operations and energy as means over its runs."""
    known = [{row["name"]: row for row in run.details["layers"]} for run in group.runs if run.details.get("layers")]
    if not known:
        return []
    layers = []
    for name, first in known[0].items():
        rows = [layers_of_run[name] for layers_of_run in known if name in layers_of_run]
        means = {key: float(np.mean([row[key] for row in rows])) for key in ("rate", "macs", "synops")}
        energies = {rule: float(np.mean([row["energy_nJ"][rule] for row in rows])) for rule in first["energy_nJ"]}
        layers.append({**first, **means, "energy_nJ": energies})
    return layers


def part_scores(group: Group) -> dict[str, dict[str, list[float]]]:
    """Recall per class and accuracy per group of all runs, in [0, 1], by grouping and name."""
    parts: dict[str, dict[str, list[float]]] = {}
    # Groupings are told from other entries with a slash by what is known to be none.
    other = ("firing_rate", "dead", "saturated", "operations", "energy", "WAR_at")
    for run in group.runs:
        for key, value in run.test.items():
            grouping, slash, name = key.partition("/")
            if slash and grouping not in other:
                parts.setdefault(grouping, {}).setdefault(name, []).append(value)
    return parts


def loss_terms(names: Iterable[str]) -> list[str]:
    """The terms of the loss among logged metrics: `train/<term>`, not their weights and what a strategy logs beside."""
    terms = [name.removeprefix("train/") for name in names if name.startswith("train/")]
    return [term for term in terms if "/" not in term and not term.endswith("_weight")]


def pictures_of(group: Group) -> Iterator[Picture]:
    """The pictures of one experiment: sums and means over its runs, spikes and clip of the first."""
    first = group.runs[0]
    several = len(group.runs) > 1
    one = f"Seed {first.seed}." if several else ""
    known = [run.details for run in group.runs if run.details.get("confusion")]
    if known:  # of all runs, unless one was tested before details were kept
        runs = f"{len(known)} runs" if len(known) == len(group.runs) else f"{len(known)} of {len(group.runs)} runs"
        note = f"Sum over {runs}; percent of the true class." if several else "Percent of the true class."
        counts = np.sum([details["confusion"] for details in known], axis=0)
        yield vector(confusion_picture(counts, known[0]["classes"]), "Confusion matrix", note)
    elif (path := first.folder / "pictures" / "confusion.png").is_file():
        yield bitmap(path, "Confusion matrix", one)
    parts = part_scores(group)
    if parts:
        means = {f"{grouping}/{name}": float(np.mean(values))
                 for grouping, named in parts.items() for name, values in named.items()}  # fmt: skip
        overall = {key: group.mean(key) or 0.0 for key in ("WAR", "UAR")}
        title = "Recall per class" + "".join(f", accuracy per {grouping}" for grouping in parts if grouping != "recall")
        yield vector(recall_bars({**means, **overall}, 5.0), title, "Mean over runs." if several else "")
    layers = mean_layers(group)
    chart = layer_chart(layers) if layers else None
    if chart is not None:
        yield vector(chart, "Firing rate and energy per layer", "Mean over runs." if several else "")
    terms = {
        name: [run.curves[f"train/{name}"] for run in group.runs if f"train/{name}" in run.curves]
        for name in loss_terms(first.curves)
    }
    if len(terms) > 2:  # more than the task's loss and the total, which is the same
        yield vector(curve_chart(terms, "epoch", "loss; terms before weighting"), "Terms of the training loss")
    spikes = first.details.get("spikes")
    if spikes:
        shown = {layer: raster(entry) for layer, entry in spikes.items()}
        whole = {layer: (entry["neurons"], entry["rate"]) for layer, entry in spikes.items()}
        yield vector(raster_picture(shown, whole, 5.0), "Spikes of one test sample", one)
    elif (path := first.folder / "pictures" / "raster.png").is_file():
        yield bitmap(path, "Spikes of one test sample", one)
    if (path := first.folder / "pictures" / "clip.png").is_file():
        yield bitmap(path, "One test sample, step by step", one)


def part_table(groups: Sequence[Group], grouping: str) -> dict[str, list[str]]:
    """Accuracies in percent by name of class or group: one cell an experiment, `-` where it has none."""
    scores = [part_scores(group).get(grouping, {}) for group in groups]
    names = dict.fromkeys(name for named in scores for name in named)
    return {name: [cell("%", [100 * value for value in named.get(name, [])]) for named in scores] for name in names}


def layer_rows(layers: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of the table of layers: name, kind, input, rate, operations, energy by rule in microjoules."""
    rows = []
    for row in layers:
        energies = [f"{row['energy_nJ'][rule] / 1000:.3g}" for rule in ("paper", "syops", "lemaire", "dense")]
        counts = [f"{row['macs']:,.0f}", f"{row['synops']:,.0f}"]
        rows.append([row["name"], row["op"], row["kind"], f"{row['rate']:.3f}", *counts, *energies])
    return rows


def test_again(group: Group) -> str:
    """The command that gives a run what this page shows beside its scores; empty where every run has it."""
    for run in group.runs:
        config, checkpoint = run.folder / "config.yaml", run.folder / "checkpoints" / "best.ckpt"
        if not run.details and config.is_file() and checkpoint.is_file():
            return shlex.join(["lightning", "test", "--config", str(config), "--ckpt_path", str(checkpoint)])
    return ""


def page(groups: Sequence[Group], experiments: Path) -> str:
    """Makes the page.

    Args:
        groups: The experiments.
        experiments: Folder with their YAMLs, for their notes.

    Returns:
        A whole HTML document. Everything that comes from a file is escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    sections = []
    for group in watched(groups, "Drawing", len(groups)):
        sections.append(
            {
                "label": group.label,
                "cells": cells(group),
                "notes": notes(group, experiments),
                "command": command(group),
                "runs": group.runs,
                "pictures": list(pictures_of(group)),
                "layers": layer_rows(mean_layers(group)),
                "test_again": test_again(group),
            }
        )
    groupings = dict.fromkeys(name for group in groups for name in part_scores(group))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html").render(
        sections=sections,
        columns=COLUMNS,
        note_names=NOTES,
        sources=sorted({group.source for group in groups}),
        simulated=any(run.results["data_source"] == "simulated" for group in groups for run in group.runs),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        charts=list(comparison(groups)),
        settings=differences([group.runs[0].config for group in groups]),
        parts={grouping: part_table(groups, grouping) for grouping in groupings},
        style=(Path(__file__).parent / "page.css").read_text(),
    )
