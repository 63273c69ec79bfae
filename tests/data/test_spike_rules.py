"""The rules of spike trains name the recording at fault among several, and nothing that is right."""

from pathlib import Path

import numpy as np
import pytest

from sdsnn_lightning.data.spike_rules import SpikeChunk, check_spikes
from sdsnn_lightning.errors import DataError


def check(times, units, counts, unit_counts=None):
    chunk = SpikeChunk(np.array(times, np.float32), np.array(units), np.array(counts, np.int64))
    check_spikes(Path("x.h5"), chunk, 100, unit_counts or counts)


def test_what_is_allowed():
    check([0.0, 0.5, 0.5, 0.1, 60.0], [0, 699, 3, 3, 3], [3, 2])  # equal times; the next recording begins anew
    check([], [], [])


@pytest.mark.parametrize(
    ("times", "units", "counts", "unit_counts", "said"),
    [
        ([0, 1, 2], [1, 1], [1, 2], [1, 1], "recording 101 has 2 times but 1 units; replace the file"),
        ([0, 1], [1, 1], [1, 0, 1], None, "recording 101 has no spikes; take it out of the file"),
        ([0, np.nan], [1, 1], [1, 1], None, "recording 101 has a spike at nan s; times must be finite"),
        ([np.inf, 1], [1, 1], [1, 1], None, "recording 100 has a spike at inf s; times must be finite"),
        ([0, 1, -0.5], [1, 1, 1], [2, 1], None, "recording 101 has a spike at -0.5 s"),
        ([0, 500], [1, 1], [1, 1], None, "recording 101 has a spike at 500 s, beyond 60 s; write times in seconds"),
        ([0, 1], [1, 700], [1, 1], None, "recording 101 has unit 700; units must be 0 to 699"),
        ([0, 1], [-1, 1], [1, 1], None, "recording 100 has unit -1; units must be 0 to 699"),
        ([0.5, 0.1, 0.3, 0.2], [1] * 4, [1, 3], None, "recording 101 has a spike at 0.2 s after one at 0.3 s"),
    ],
)
def test_the_first_fault_is_named_with_its_recording(times, units, counts, unit_counts, said):
    with pytest.raises(DataError) as error:
        check(times, units, counts, unit_counts)
    assert str(error.value).startswith(f"x.h5: {said}")
