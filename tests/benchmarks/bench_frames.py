"""Row 7: events to frames and voxel grids against tonic: `python tests/benchmarks/bench_frames.py`.

A million random events of a 128x128 sensor into 16 frames. tonic gets its events in the type that suits it best of
those tried, and the best counts. Frames are checked to be equal first, all but the last, where conventions differ.
The voxel grid stands against tonic's own voxel grid, and against its `ToFrame` by time.
"""

from collections.abc import Callable, Iterator

import numpy as np
from measure import Options, Row, alternate, compare, main
from tonic.transforms import ToFrame, ToVoxelGrid

from sdsnn_lightning.data.event_frames import (
    count_bounds,
    frames_by_count,
    frames_by_duration,
    pixel_map,
    sum_events,
    voxel_grid,
)
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE

STEPS = 16
INT16, INT64 = ([("t", np.int64), ("x", kind), ("y", kind), ("p", kind)] for kind in (np.int16, np.int64))


def rows(options: Options) -> Iterator[Row]:
    """Four rows."""
    count = 10_000 if options.quick else 1_000_000
    rng = np.random.default_rng(0)
    events = np.empty(count, EVENT_DTYPE)
    events["t"] = np.cumsum(rng.integers(0, 3, count))
    events["x"], events["y"], events["p"] = (rng.integers(0, n, count) for n in (128, 128, 2))
    small, wide = events.astype(INT16), events.astype(INT64)
    by_count, by_time = (ToFrame((128, 128, 2), **{key: STEPS}) for key in ("n_event_bins", "n_time_bins"))
    grid = ToVoxelGrid((128, 128, 2), STEPS)
    assert (by_count(wide)[:-1] == frames_by_count(events, STEPS)[:-1]).all()
    assert (by_time(wide)[:-1] == frames_by_duration(events, STEPS)[:-1]).all()
    resized = pixel_map(128, 48)
    runs: dict[str, Callable[[], object]] = {
        "frames_by_count": lambda: frames_by_count(events, STEPS),
        "frames_by_duration": lambda: frames_by_duration(events, STEPS),
        "voxel_grid": lambda: voxel_grid(events, STEPS),
        "sum_events to 48x48": lambda: sum_events(events, count_bounds(len(events), STEPS), resized, resized),
        "tonic ToFrame by count, int16": lambda: by_count(small),
        "tonic ToFrame by count, int64": lambda: by_count(wide),
        "tonic ToFrame by time, int16": lambda: by_time(small),
        "tonic ToFrame by time, int64": lambda: by_time(wide),
        "tonic ToVoxelGrid, int16": lambda: grid(small.copy()),  # it writes into its events
        "tonic ToVoxelGrid, int64": lambda: grid(wide.copy()),
    }
    times = alternate(runs, options)
    pairs = [
        ("frames_by_count", "tonic ToFrame by count"),
        ("frames_by_duration", "tonic ToFrame by time"),
        ("voxel_grid", "tonic ToVoxelGrid"),
        ("voxel_grid", "tonic ToFrame by time"),
        ("sum_events to 48x48", "tonic ToFrame by count"),
    ]
    for ours, peer in pairs:
        yield compare(7, f"{count:,} events, {ours} against {peer}", times, ours, peer, ">= 5")


if __name__ == "__main__":
    main(rows, __doc__)
