"""Row 11: one frame in, one prediction out: latency on one core, and memory over 100,000 frames.

Latency is that of the single-eye student at its full width, frame by frame, state handed on. Memory is what the process
holds after all frames against what it held after the first tenth; there the frames and the student are small, as what
grows with the number of frames does not depend on their size.
"""

import statistics
import time
from collections.abc import Iterator

import torch
from measure import Options, Row, main

from sdsnn_lightning.exports.streaming import stream
from sdsnn_lightning.memory import keep_freed_memory
from sdsnn_lightning.networks import SingleEyeStudent

LATE = 33.0  # milliseconds: a camera's 30 frames a second


def resident() -> float:
    """Megabytes of main memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


@torch.inference_mode()
def watch(size: int, width: float, frames: int) -> tuple[list[float], list[float]]:
    """Streams frames through a student.

    Returns:
        Milliseconds of every frame, at most the first 10,000 kept, and megabytes after every tenth of the frames.
    """
    step = stream(SingleEyeStudent(7, size=size, width=width))
    pictures = torch.randn(16, 1, 3, size, size)  # shown over and over
    state = step.start(pictures[0])
    taken, held, counts = [], [], torch.zeros(7, dtype=torch.int64)
    for number in range(frames):
        began = time.perf_counter()
        logits, state = step(pictures[number % 16], state)
        counts[logits.argmax()] += 1
        if number < 10_000:
            taken.append(1000 * (time.perf_counter() - began))
        if (number + 1) % (frames // 10) == 0:
            held.append(resident())
    assert counts.sum() == frames
    return taken, held


def rows(options: Options) -> Iterator[Row]:
    """Median, 99th percentile and growth."""
    keep_freed_memory()
    torch.set_num_threads(1)
    size, width, frames = (24, 0.125, 50) if options.quick else (90, 1.0, 1000)
    watch(size, width, 10)
    taken, _ = watch(size, width, frames)
    what = f"ms a frame, single-eye student, {size}x{size}, width {width}, 1 core"
    late = statistics.quantiles(taken, n=100)[98]
    note = f"{frames} frames"
    yield Row(11, f"median {what}", f"<= {LATE:g}", statistics.median(taken), min(taken), max(taken), note)
    yield Row(11, f"99th percentile {what}", f"<= {LATE:g}", late, note=note)
    frames = 1000 if options.quick else 100_000
    _, held = watch(24, 0.125, frames)
    what = f"memory after {frames:,} frames against that after a tenth of them"
    yield Row(11, what, "<= 1.01", held[-1] / held[0], medians={"MB at the end": held[-1], "MB after a tenth": held[0]})


if __name__ == "__main__":
    main(rows, __doc__)
