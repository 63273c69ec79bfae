"""The table of experiments: mean and deviation over seeds, on a terminal and as Markdown."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.reports.collect import Group, Run

COLUMNS = ("WAR %", "UAR %", "steps", "parameters", "rate", "energy uJ", "train s")
NOTES = ("method", "paper")
"""What an experiment may say about itself under `notes:` in its YAML: whose method, and the figure to compare with."""


def figures(run: Run) -> dict[str, float | None]:
    """The figures of one run, by column; None where a run has none (an ANN has no firing rate)."""
    return {
        "WAR %": 100 * run.test["WAR"],
        "UAR %": 100 * run.test["UAR"],
        "steps": run.steps,
        "parameters": run.test["parameters"],
        "rate": run.rate,
        "energy uJ": run.energy,
        "train s": run.results.get("fit", {}).get("seconds"),
    }


def cell(column: str, values: Sequence[float | None]) -> str:
    """One cell: the mean over seeds, with the sample standard deviation where there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    if column in ("parameters", "steps"):
        return f"{int(known[0]):,}"
    digits = {"rate": 3, "train s": 0}.get(column, 1)
    if column == "energy uJ" and mean(known) < 1:
        digits = 3
    text = f"{mean(known):.{digits}f}"
    return f"{text} ± {stdev(known):.{digits}f}" if len(known) > 1 and column != "train s" else text


def cells(group: Group) -> dict[str, str]:
    """The row of one experiment: `experiment`, `seeds`, `data` and the cells of `COLUMNS`."""
    of_run = [figures(run) for run in group.runs]
    row = {"experiment": group.label, "seeds": str(group.seeds), "data": group.source}
    return row | {column: cell(column, [values[column] for values in of_run]) for column in COLUMNS}


def notes(group: Group, experiments: Path) -> dict[str, str]:
    """What an experiment says about itself.

    Args:
        group: Its runs; the configuration they were trained with comes first.
        experiments: Folder with the YAMLs, for runs that were trained before theirs had notes.

    Returns:
        Text by the names of `NOTES`.

    Raises:
        ConfigError: If the YAML or its notes cannot be read.
    """
    found = group.runs[0].config.get("notes")
    path = experiments / f"{group.runs[0].name}.yaml"
    if found is None and path.is_file():
        try:
            found = (yaml.safe_load(path.read_text()) or {}).get("notes")
        except (yaml.YAMLError, AttributeError):
            raise ConfigError(f"{path} is not a valid experiment; mend it, or give another --experiments") from None
    if not isinstance(found, dict):
        return {}
    return {name: str(found[name]) for name in NOTES if found.get(name) is not None}


def command(group: Group) -> str:
    """The command line that trained the first run, where it was recorded."""
    return str(group.runs[0].results.get("fit", {}).get("command", "-"))


def prefixes(group: Group, stride: int = 1) -> str:
    """WAR in percent after every `stride`-th time step, the mean over runs; `-` where it was not measured."""
    known = [run.details["prefixes"]["WAR"] for run in group.runs if run.steps]
    if len(known) < len(group.runs) or len(set(map(len, known))) != 1:
        return "-"
    return " ".join(f"{100 * mean(scores):.1f}" for scores in list(zip(*known, strict=True))[stride - 1 :: stride])


def markdown(
    groups: Sequence[Group], experiments: Path, with_command: bool = False, with_prefixes: bool = False
) -> str:
    """The table as Markdown.

    Args:
        groups: The experiments.
        experiments: Folder with their YAMLs, for their notes.
        with_command: Whether to add the command that trained them.
        with_prefixes: Whether to add the accuracy after every number of time steps; after ten of many.

    Returns:
        Its lines. `method`, `paper` and `steps` are left out where no experiment says them.
    """
    rows = []
    most = max((run.steps or 1 for group in groups for run in group.runs), default=1)
    stride = 1 if most <= 16 else math.ceil(most / 10)
    for group in groups:
        row: dict[str, Any] = cells(group)
        said = notes(group, experiments)
        rows.append({"experiment": row.pop("experiment"), **{name: said.get(name, "-") for name in NOTES}, **row})
        if with_prefixes:
            rows[-1][f"WAR % after {stride}, {2 * stride}, ..."] = prefixes(group, stride)
        if with_command:
            rows[-1]["command"] = f"`{command(group)}`"
    optional = (*NOTES, "steps")
    shown = [column for column in rows[0] if column not in optional or any(row[column] != "-" for row in rows)]
    body = [[row[column].replace("|", "\\|") for column in shown] for row in rows]
    lines = [shown, ["---"] * len(shown), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def print_table(groups: Sequence[Group]) -> None:
    """Prints the table for a terminal of 80 columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    body = [cells(group) for group in groups]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, collapse_padding=True)
    table.add_column("experiment", overflow="fold", min_width=12)
    shown = ["seeds", *(column for column in COLUMNS if column != "steps")]
    for column in shown:  # the data is said once below instead of in every row
        table.add_column(column, justify="right", no_wrap=True)
    for row in body:  # the deviation of the scores is what decides; --table has all
        short = [row[name] if name in ("WAR %", "UAR %") else row[name].partition(" ± ")[0] for name in shown]
        table.add_row(Text(row["experiment"]), *short)
    Console().print(table)
    sources = ", ".join(sorted({row["data"] for row in body}))
    print(f"Test part of {sources}. rate: spikes per neuron and step; energy per sample by")
    print("the paper rule at 45 nm, 4.6 pJ a multiply-accumulate and 0.9 pJ an accumulate.")
