"""Times events to frames against tonic: `python tests/benchmarks/bench_frames.py [--events N] [--repeats N]`.

Printed are medians in milliseconds over alternating repeats in one process. Both count a million random events of a
128x128 sensor into 16 frames; tonic gets its events in the type that suits it best of those tried.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from tonic.transforms import ToFrame

from sdsnn_lightning.data.event_frames import count_bounds, frames_by_count, frames_by_duration, pixel_map, sum_events
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE

STEPS = 16
INT16, INT64 = ([("t", np.int64), ("x", kind), ("y", kind), ("p", kind)] for kind in (np.int16, np.int64))


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    events = np.empty(args.events, EVENT_DTYPE)
    events["t"] = np.cumsum(rng.integers(0, 3, args.events))
    events["x"], events["y"], events["p"] = (rng.integers(0, n, args.events) for n in (128, 128, 2))
    small, wide = events.astype(INT16), events.astype(INT64)
    by_count, by_time = (ToFrame((128, 128, 2), **{key: STEPS}) for key in ("n_event_bins", "n_time_bins"))
    assert (by_count(wide)[:-1] == frames_by_count(events, STEPS)[:-1]).all()
    assert (by_time(wide)[:-1] == frames_by_duration(events, STEPS)[:-1]).all()
    resized = pixel_map(128, 48)
    runs: dict[str, Callable[[], object]] = {
        "tonic ToFrame, by count, int16": lambda: by_count(small),
        "tonic ToFrame, by count, int64": lambda: by_count(wide),
        "frames_by_count": lambda: frames_by_count(events, STEPS),
        "tonic ToFrame, by time, int16": lambda: by_time(small),
        "tonic ToFrame, by time, int64": lambda: by_time(wide),
        "frames_by_duration": lambda: frames_by_duration(events, STEPS),
        "sum_events to 48x48": lambda: sum_events(events, count_bounds(len(events), STEPS), resized, resized),
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            taken[name].append(1000 * (time.perf_counter() - began))
    median = {name: statistics.median(times) for name, times in taken.items()}
    for name, times in taken.items():
        print(f"{name:32} {median[name]:8.2f} ms   ({min(times):.2f} to {max(times):.2f})")
    for ours, how in (("frames_by_count", "by count"), ("frames_by_duration", "by time")):
        theirs = min(value for name, value in median.items() if name.startswith("tonic") and how in name)
        print(f"{ours}: {theirs / median[ours]:.1f} times as fast as tonic")


if __name__ == "__main__":
    main()
