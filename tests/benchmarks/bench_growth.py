"""Row 10: how time and memory of a training step grow with time steps, batch, depth and width.

SpikeSCR, one size changed at a time. The exponent is the slope of log time over log T in a least-squares line from 100
steps on, below which a step is mostly fixed cost. Memory is the peak resident memory of the process above that before
the step, which Linux lets a process set back. The picture holds all four curves.
"""

import ctypes
import gc
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Options, Row, in_turns, main
from twins import training_step

from sdsnn_lightning.networks import SpikeSCR
from sdsnn_lightning.whole import whole_path

PICTURE = Path(__file__).parents[2] / "experiments" / "pictures" / "growth.png"
USUAL = {"time steps": 100, "batch": 4, "depth": 1, "width": 64}
SWEPT = {"time steps": (10, 30, 100, 300, 1000), "batch": (1, 2, 4, 8, 16), "depth": (1, 2, 3, 4),
         "width": (32, 64, 128, 256)}  # fmt: skip
SHORT = {"time steps": (100, 200), "batch": (1, 2), "depth": (1, 2), "width": (32, 64)}
FIXED = 100  # time steps below which a step is mostly fixed cost


def resident(word: str) -> float:
    """Mebibytes of resident memory now (`VmRSS`) or at its peak (`VmHWM`)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(word))
    return int(line.split()[1]) / 1024


def peak(step: Any) -> float:
    """Mebibytes that a step takes at its peak; not a number where the system does not tell."""
    try:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
        before = resident("VmRSS")
        step()
        return resident("VmHWM") - before
    except (OSError, AttributeError, StopIteration):
        return math.nan


def slope(sizes: list[int], values: list[float]) -> float:
    """Exponent of a power law through the points."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def measure(sizes: dict[str, int], options: Options) -> tuple[list[float], float]:
    """Milliseconds of the training steps, and mebibytes of one."""
    network = SpikeSCR(20, width=sizes["width"], depth=sizes["depth"], masked=False)
    spikes = (torch.rand(sizes["time steps"], sizes["batch"], 140) < 0.1).float()
    step = training_step(network, (spikes,), torch.arange(sizes["batch"]) % 20)
    step()

    def timed() -> float:
        began = options.clock()
        step()
        return 1000 * (options.clock() - began)

    taken = in_turns({"step": timed}, options)["step"]
    return taken, peak(step)


def draw(found: dict[str, dict[int, tuple[float, float]]], path: Path) -> None:
    """Draws time and memory per sample over each size; the file appears when whole."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(12, 3.2), layout="constrained", dpi=120)
    axes = figure.subplots(1, len(found))
    for axis, (name, points) in zip(axes, found.items(), strict=True):
        batch = [size if name == "batch" else USUAL["batch"] for size in points]
        for column, (label, marker) in enumerate((("ms a sample", "o-"), ("MiB a sample", "s--"))):
            axis.plot(list(points), [v[column] / b for v, b in zip(points.values(), batch, strict=True)], marker,
                      label=label, color="black" if column == 0 else "grey")  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel=name)
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticks(list(points), [str(size) for size in points])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.tick_params(labelsize=8, which="both")
        axis.legend(fontsize=8)
    figure.suptitle("Training step of SpikeSCR, one size changed at a time", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_path(path) as aside:
        figure.savefig(aside, format="png")


def rows(options: Options) -> Iterator[Row]:
    """The exponent of time over T, that of memory, and the picture."""
    torch.manual_seed(0)
    found: dict[str, dict[int, tuple[float, float]]] = {}
    over_time: dict[int, list[float]] = {}
    for name, sizes in (SHORT if options.quick else SWEPT).items():
        found[name] = {}
        for size in sizes:
            taken, memory = measure({**USUAL, name: size}, options)
            found[name][size] = statistics.median(taken), memory
            if name == "time steps":
                over_time[size] = taken
    long = [size for size in over_time if size >= FIXED]
    each = [slope(long, list(column)) for column in zip(*(over_time[size] for size in long), strict=True)]
    medians = {f"step at T={size}": values[0] for size, values in found["time steps"].items()}
    value = slope(long, [found["time steps"][size][0] for size in long])
    what = "growth of a training step with T, exponent of"
    yield Row(10, f"{what} time", "<= 1.1", value, min(each), max(each), "SpikeSCR, T of 100 and more", medians)
    memory = {f"peak at T={size}, MiB": values[1] for size, values in found["time steps"].items()}
    if all(mebibytes > 0 for mebibytes in memory.values()):
        value = slope(long, [found["time steps"][size][1] for size in long])
        yield Row(10, f"{what} memory", "<=", value, note="experiments/pictures/growth.png", medians=memory)
    else:
        yield Row(10, f"{what} memory", note="the system does not tell a process its peak")
    if not options.quick:
        draw(found, PICTURE)


if __name__ == "__main__":
    main(rows, __doc__)
