"""`details.json` of a run folder: what a test measured beside its scores, from which reports are drawn later.

| entry | holds |
| --- | --- |
| `classes`, `confusion` | class names, and counts `[K][K]` whose rows are the true classes |
| `groups` | by grouping and name, `right` answers and `samples` |
| `layers` | operations, rate and energy of every layer, per sample |
| `prefixes` | `WAR` after every number of time steps, and whether the network is `causal` over time |
| `spikes` | of one sample by layer: number of `neurons`, their `rate`, and when some of them `fired` |
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sdsnn_lightning.errors import DataError
from sdsnn_lightning.metrics.emotion import ClassificationScores
from sdsnn_lightning.metrics.energy import RULES, EnergyReport

FILE = "details.json"
NEURONS_KEPT = 128
"""Of a larger layer so many neurons are kept, evenly picked: enough for a picture, and the file stays small."""


def layer_entries(report: EnergyReport) -> list[dict[str, Any]]:
    """The layers of a measured network as plain values.

    Args:
        report: What `EnergyScore.compute` returned.

    Returns:
        One entry a layer, in order of first use: `name`, `op`, `kind` of its input, `rate` (share of the input that is
        not zero; of neurons their firing rate), `macs`, `synops` and `energy_nJ` by rule, all per sample.
    """
    return [
        {
            "name": row.name, "op": row.op, "kind": row.kind, "rate": row.rate, "macs": row.macs, "synops": row.synops,
            "energy_nJ": {name: 1e9 * rule(row) for name, rule in RULES.items()},
        }
        for row in report.rows
    ]  # fmt: skip


def score_entries(metric: ClassificationScores) -> dict[str, Any]:
    """The counts behind the scores.

    Args:
        metric: After the test.

    Returns:
        The entries `classes`, `confusion` and `groups`; groups without samples are left out.
    """
    groups: dict[str, dict[str, dict[str, int]]] = {}
    for grouping in metric.groupings:
        answers = getattr(metric, f"answers_{grouping}").tolist()
        named = zip(metric.groups[grouping], answers, strict=True)
        groups[grouping] = {name: {"right": row[1], "samples": sum(row)} for name, row in named if sum(row)}
    return {"classes": metric.class_names, "confusion": metric.confusion.tolist(), "groups": groups}


def spike_entries(spikes: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """One sample's spikes as text.

    Args:
        spikes: `[T, N]` by layer, non-zero where a neuron fires.

    Returns:
        By layer `neurons` (N), `rate` over all of them, and `fired`: for each of up to `NEURONS_KEPT` neurons a string
        of T characters, `1` where it fires.
    """
    entries = {}
    for layer, values in spikes.items():
        fired = values.detach().cpu().ne(0).numpy()
        shown = np.linspace(0, fired.shape[1] - 1, min(fired.shape[1], NEURONS_KEPT)).round().astype(int)
        rows = ["".join("01"[int(spike)] for spike in row) for row in fired[:, shown].T]
        entries[layer] = {"neurons": fired.shape[1], "rate": float(fired.mean()), "fired": rows}
    return entries


def raster(entry: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Reads one layer of `spike_entries` back.

    Args:
        entry: Its entry.

    Returns:
        The spikes of the neurons that were kept, `[T, N]`.
    """
    return np.array([[character == "1" for character in row] for row in entry["fired"]], dtype=bool).T


def read_details(folder: Path) -> dict[str, Any]:
    """Reads the details of a run.

    Args:
        folder: The run folder.

    Returns:
        The entries; none where the run was tested before they were kept.

    Raises:
        DataError: If the file is broken.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise DataError(f"{path} is not valid JSON; delete it and run `lightning test` again") from None
