"""Pictures of a run: confusion, recalls, spike rasters, a clip with what the student made of it, a predicted video.

All are readable without colour: values are printed as numbers, and bars differ by hatching. Functions return a
matplotlib `Figure`; nothing is shown and no global state (pyplot) is touched.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS_SHOWN = 128
"""A raster shows at most so many neurons of a layer, evenly picked."""
STEPS_SHOWN = 16
"""Up to so many time steps each gets its own image and its own number."""
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "ooo")


def blank_figure(width: float, height: float) -> "Figure":
    """An empty figure of a size in inches, with a layout that keeps labels apart."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def _array(values: Tensor | NDArray) -> NDArray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _ink(shade: float) -> str:
    """Text colour that is readable on a grey of `shade` in [0, 1], 1 black."""
    return "white" if shade > 0.5 else "black"


def confusion_picture(confusion: Tensor | NDArray, class_names: Sequence[str]) -> "Figure":
    """Draws a confusion matrix: shade and number are percent of the true class.

    Args:
        confusion: Counts `[K, K]`, rows are the true classes.
        class_names: K names.

    Returns:
        The figure. Numbers below 0.5 % are left out, as are all numbers above 20 classes.
    """
    counts, size = _array(confusion).astype(float), len(class_names)
    samples = counts.sum(1)
    share = counts / np.maximum(samples[:, None], 1)
    figure = blank_figure(2.4 + 0.5 * size if size <= 20 else 12, 2 + 0.45 * size if size <= 20 else 11)
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Greys", vmin=0, vmax=1)
    if size <= 20:
        for row, column in np.argwhere(share > 0.005):
            text, weight = f"{100 * share[row, column]:.0f}", "bold" if row == column else "normal"
            axes.text(column, row, text, ha="center", va="center", color=_ink(share[row, column]), weight=weight)
    axes.set_xticks(range(size), class_names, rotation=90 if size > 20 else 40, ha="center" if size > 20 else "right")
    axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
    axes.set_yticks(range(size), [f"{name} ({int(n)})" for name, n in zip(class_names, samples, strict=True)])
    axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.set(xlabel="predicted", ylabel="true (samples)")
    recall = share.diagonal()[samples > 0].mean() if samples.any() else float("nan")
    accuracy = counts.trace() / max(samples.sum(), 1)
    axes.set_title(f"WAR {100 * accuracy:.1f} %, UAR {100 * recall:.1f} %", fontsize="medium")
    return figure


def recall_bars(scores: Mapping[str, float | Tensor], width: float = 6.5) -> "Figure":
    """Draws recall per class and accuracy per group, one panel a grouping.

    Args:
        scores: What `ClassificationScores.compute` returns; `<grouping>/<name>` entries are drawn, in [0, 1].
        width: Of the figure in inches.

    Returns:
        The figure.
    """
    panels: dict[str, dict[str, float]] = {}
    for key, value in scores.items():
        if "/" in key:
            grouping, name = key.split("/", 1)
            panels.setdefault(grouping, {})[name] = float(value)
    heights = [len(panel) for panel in panels.values()] or [1]
    figure = blank_figure(width, 0.8 + 0.32 * sum(heights) + 0.5 * len(heights))
    grid = figure.add_gridspec(len(heights), 1, height_ratios=[n + 1 for n in heights])
    for index, (grouping, panel) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[index])
        style: dict[str, Any] = {"color": "0.85", "edgecolor": "black", "hatch": HATCHES[index % len(HATCHES)]}
        bars = axes.barh(list(panel), [100 * value for value in panel.values()], height=0.7, **style)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # keeps the number readable on the dashed line
        axes.bar_label(bars, fmt="%.1f", padding=4, bbox=box)
        axes.invert_yaxis()
        axes.set_xlim(0, 112)
        axes.set_xticks(range(0, 101, 20))
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title("recall per class" if grouping == "recall" else f"accuracy per {grouping}", fontsize="medium")
        overall = scores.get("UAR" if grouping == "recall" else "WAR")
        if overall is not None:
            axes.axvline(100 * float(overall), color="black", linestyle="--", linewidth=1)
    if panels:
        axes.set_xlabel("percent; dashed: UAR of the classes, WAR of the groups")
    return figure


def raster_picture(
    spikes: Mapping[str, Tensor | NDArray], whole: Mapping[str, tuple[int, float]] | None = None, width: float = 7
) -> "Figure":
    """Draws when which neurons of one sample fire, one panel a layer.

    Args:
        spikes: `[T, N]` by layer, non-zero where a neuron fires; of `record_spikes` take one sample, `[:, b]`.
        whole: Number of neurons and firing rate of the layers, where `spikes` has but some of their neurons.
        width: Of the figure in inches.

    Returns:
        The figure; of large layers `ROWS_SHOWN` neurons, evenly picked.
    """
    rows = len(spikes) or 1
    figure = blank_figure(width, 0.6 + 1.25 * rows)
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for axes, (layer, fired) in zip(panels, spikes.items(), strict=False):
        _raster(axes, _array(fired), layer, (whole or {}).get(layer))
    panels[-1].set_xlabel("time step")
    return figure


def _raster(axes: Any, fired: NDArray, layer: str, whole: tuple[int, float] | None = None) -> None:
    """One layer's raster `[T, N]`, with its firing rate in the title; `whole`: neurons and rate, where N are some."""
    steps, kept = fired.shape
    neurons, rate = whole or (kept, np.count_nonzero(fired) / fired.size)
    shown = _evenly(kept, ROWS_SHOWN)
    axes.imshow(fired.T[shown] != 0, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    part = f"{len(shown)} of {neurons}" if len(shown) < neurons else f"all {neurons}"
    title = f"{layer}: {100 * rate:.1f} % fire a step ({part} neurons shown)"
    axes.set_title(title, fontsize="small", loc="left", pad=3)
    axes.set_yticks([])
    axes.set_ylabel("neurons", fontsize="small")
    _number_steps(axes, steps)
    for edge in np.arange(steps - 1) + 0.5 if steps <= STEPS_SHOWN else []:
        axes.axvline(edge, color="0.7", linewidth=0.5)


def _evenly(count: int, most: int) -> NDArray:
    """At most `most` positions out of `count`, evenly picked, with the first and the last."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def _number_steps(axes: Any, steps: int) -> None:
    """Numbers the time steps from 1, all of them or nine."""
    ticks = _evenly(steps, steps if steps <= STEPS_SHOWN else 9)
    axes.set_xticks(ticks, [str(step + 1) for step in ticks])


def clip_strip(
    frames: Tensor | NDArray | None,
    events: Tensor | NDArray | None,
    spikes: Mapping[str, Tensor | NDArray],
    probabilities: Tensor | NDArray,
    class_names: Sequence[str],
    label: str | None = None,
) -> "Figure":
    """Draws one clip from top to bottom: frames, events, the student's spikes, and its answer, step by step.

    Args:
        frames: Intensity images `[T, H, W]` on any scale, or None. Of one that does not change, `T = 1`, it shows one.
        events: Event images `[T, H, W]`, bright positive and dark negative, or None.
        spikes: `[T, N]` by layer, non-zero where a neuron fires.
        probabilities: Class probabilities `[T, K]` after each step; the last row is the answer.
        class_names: K names.
        label: The true class, marked where given.

    Returns:
        The figure. All rows share the time axis; of more than `STEPS_SHOWN` images so many are shown, evenly picked.
    """
    shares = _array(probabilities)
    steps, classes = shares.shape
    images = [(name, _array(rows)) for name, rows in (("frames", frames), ("events", events)) if rows is not None]
    heights = [1.0] * len(images) + [0.9] * len(spikes) + [0.3 + 0.22 * classes]
    shown = _evenly(steps, STEPS_SHOWN)
    figure = blank_figure(1.6 + 1.0 * max(len(shown), 5), 0.7 + sum(heights) + 0.25 * len(heights))
    grid = figure.add_gridspec(len(heights), len(shown), height_ratios=heights)
    for row, (name, pictures) in enumerate(images):
        low, high = pictures.min(), pictures.max()
        if name == "events":  # no event, the commonest value, is the middle grey
            rest = np.median(pictures)
            reach = max(high - rest, rest - low)
            low, high = rest - reach, rest + reach
        for column, step in enumerate(shown[: len(pictures)]):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(pictures[step], cmap="gray", vmin=low, vmax=high)
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel(name)
    for row, (layer, fired) in enumerate(spikes.items(), start=len(images)):
        axes = figure.add_subplot(grid[row, :])
        _raster(axes, _array(fired), layer)
        axes.set_xticks([])
    axes = figure.add_subplot(grid[-1, :])
    _probability_table(axes, shares, class_names, label)
    _number_steps(axes, steps)
    axes.set_xlabel("time step")
    answer = class_names[int(shares[-1].argmax())]
    verdict = "" if label is None else f", true: {label} ({'right' if label == answer else 'wrong'})"
    figure.suptitle(f"predicted: {answer} ({100 * shares[-1].max():.0f} %){verdict}")
    return figure


def _probability_table(axes: Any, shares: NDArray, class_names: Sequence[str], label: str | None) -> None:
    """Probabilities `[T, K]` as shaded cells with percentages, time to the right."""
    axes.imshow(shares.T, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    if len(shares) <= STEPS_SHOWN:
        for step, k in np.argwhere(shares > 0.005):
            text, ink = f"{100 * shares[step, k]:.0f}", _ink(shares[step, k])
            axes.text(step, k, text, ha="center", va="center", fontsize="small", color=ink)
    axes.set_yticks(
        range(len(class_names)), [f"true > {n}" if n == label else n for n in class_names], fontsize="small"
    )


def prediction_strip(
    seconds: Sequence[float],
    probabilities: Tensor | NDArray,
    class_names: Sequence[str],
    thumbnails: Sequence[tuple[float, NDArray]] = (),
    unit: str = "seconds",
) -> "Figure":
    """Draws the answers over a video: thumbnails with the answer below, then every class's probability over time.

    Args:
        seconds: Time of each window in the video, `[N]`, rising.
        probabilities: Class probabilities `[N, K]`.
        class_names: K names.
        thumbnails: Some images `[H, W]` with their time, in order.
        unit: Of the time axis.

    Returns:
        The figure.
    """
    shares, times = _array(probabilities), np.asarray(seconds)
    best = shares.argmax(1)
    figure = blank_figure(11, 1.6 + 0.28 * len(class_names) + (1.4 if thumbnails else 0))
    ratios = ([1.3] if thumbnails else []) + [0.8 + 0.24 * len(class_names)]
    grid = figure.add_gridspec(len(ratios), max(len(thumbnails), 1), height_ratios=ratios)
    for column, (time, image) in enumerate(thumbnails):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(image, cmap="gray")
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{time:.1f} s" if unit == "seconds" else f"{time:g}", fontsize="small")
        axes.set_xlabel(class_names[best[np.abs(times - time).argmin()]], fontsize="small")
    axes = figure.add_subplot(grid[-1, :])
    step = times[1] - times[0] if len(times) > 1 else 1.0
    extent = (times[0] - step / 2, times[-1] + step / 2, len(class_names) - 0.5, -0.5)
    axes.imshow(shares.T, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest", extent=extent)
    size = 4 if len(times) <= 200 else 2
    axes.plot(times, best, "o", color="black", markerfacecolor="white", markersize=size, linestyle="none")
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set_xlabel(f"{unit}; shade: probability (black 1), circle: answer")
    return figure


def save_run_pictures(
    folder: Path,
    confusion: Tensor | NDArray,
    class_names: Sequence[str],
    scores: Mapping[str, float | Tensor] | None = None,
    spikes: Mapping[str, Tensor | NDArray] | None = None,
    others: Mapping[str, "Figure | None"] | None = None,
) -> list[Path]:
    """Saves the pictures of an evaluated run as PNG files.

    Args:
        folder: Made if it does not exist.
        confusion: Counts `[K, K]`, rows are the true classes.
        class_names: K names.
        scores: What `ClassificationScores.compute` returns, for `recall.png`.
        spikes: `[T, N]` by layer of one sample, for `raster.png`.
        others: More figures by the name of their file, for instance what `clip_strip` returned; None is left out.

    Returns:
        The files written.
    """
    figures = {"confusion": confusion_picture(confusion, class_names)}
    if scores is not None:
        figures["recall"] = recall_bars(scores)
    if spikes:
        figures["raster"] = raster_picture(spikes)
    figures |= {name: figure for name, figure in (others or {}).items() if figure is not None}
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        figure.savefig(path)
    return paths
