"""`sdsnn report`: compares runs by their results files, never by what somebody typed."""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sdsnn_lightning import runs
from sdsnn_lightning.errors import DataError

COLUMNS = ("WAR %", "UAR %", "parameters", "rate", "energy uJ", "train s")


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Reads the tested runs of one run folder, or of all versions of one experiment (the newest of each seed).

    Args:
        folder: `<runs>/<experiment>/version_<n>` or `<runs>/<experiment>`.

    Returns:
        Contents of the results files, each with its `folder` and `name`.

    Raises:
        DataError: If there is no tested run, or a results file is broken.
    """
    single = (folder / "results.json").is_file()
    found: dict[Any, dict[str, Any]] = {}
    for path in [folder] if single else runs.versions(folder.parent, folder.name):
        file = path / "results.json"
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_text())
        except ValueError:
            raise DataError(f"{file} is not valid JSON; delete it and run `lightning test` again") from None
        if "test" in content:
            name = (folder.parent if single else folder).name
            found[content.get("seed") or path.name] = {**content, "folder": path, "name": name}
    if not found:
        raise DataError(f"{folder} holds no tested run; run `lightning test --config ... --ckpt_path best` first")
    return list(found.values())


def figures(result: dict[str, Any]) -> dict[str, float | None]:
    """The figures of one run, by column; None where a run has none (an ANN has no firing rate)."""
    test = result["test"]
    energy = test.get("energy/paper_nJ")
    return {
        "WAR %": 100 * test["WAR"],
        "UAR %": 100 * test["UAR"],
        "parameters": test["parameters"],
        "rate": test.get("firing_rate/total"),
        "energy uJ": None if energy is None else energy / 1000,
        "train s": result.get("fit", {}).get("seconds"),
    }


def cell(column: str, values: list[float | None]) -> str:
    """One cell: the mean over seeds, with the standard deviation where there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    if column == "parameters":
        return f"{int(known[0]):,}"
    digits = {"rate": 3, "train s": 0}.get(column, 1)
    text = f"{mean(known):.{digits}f}"
    return f"{text} ± {stdev(known):.{digits}f}" if len(known) > 1 and column != "train s" else text


def source(result: dict[str, Any]) -> str:
    """The data of a run; also says so where the test set has picked the checkpoint."""
    picked = ", picked on test" if result.get("protocol") == "test" else ""
    return f"{result['data']} ({result['data_source']}{picked})"


def rows(results: list[dict[str, Any]]) -> list[list[str]]:
    """One row an experiment: name, seeds, data source and the cells of `COLUMNS`."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        groups[result["name"]].append(result)
    table = []
    for name, group in groups.items():
        of_run = [figures(result) for result in group]
        sources = "/".join(sorted({source(result) for result in group}))
        cells = [cell(column, [values[column] for values in of_run]) for column in COLUMNS]
        table.append([name, str(len(group)), sources, *cells])
    return table


def main(args: list[str]) -> None:
    """Prints the comparison.

    Args:
        args: Command-line words after `report`.
    """
    parser = argparse.ArgumentParser(
        prog="sdsnn report",
        description="Compare tested runs: mean and standard deviation over seeds, energy by the usual paper rule.",
        epilog="example: sdsnn report runs/quick/seye_teacher runs/quick/seye_ce runs/quick/seye",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="Run folders, or experiment folders for all their seeds.")
    parser.add_argument("--table", action="store_true", help="Print a Markdown table.")
    options = parser.parse_args(args)
    results = [result for folder in options.runs for result in read_results(folder)]
    header = ["experiment", "seeds", "data", *COLUMNS]
    if options.table:
        print("| " + " | ".join(header) + " |", "|" + " --- |" * len(header), sep="\n")
        for row in rows(results):
            print("| " + " | ".join(row) + " |")
        return
    _print_table(header, rows(results))
    for result in results:
        names = sorted(path.stem for path in result["folder"].glob("pictures/*.png"))
        if names:
            print(f"pictures: {result['folder']}/pictures/{{{','.join(names)}}}.png")


def _print_table(header: list[str], body: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    data = header.index("data")  # said once below instead of in every row: the table must fit 80 columns
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, collapse_padding=True)
    for column in header[:data] + header[data + 1 :]:
        table.add_column(column, justify="left" if column == "experiment" else "right", no_wrap=True)
    for row in body:  # the deviation of the scores is what decides; --table has all
        short = [cell if index < data + 3 else cell.partition(" ± ")[0] for index, cell in enumerate(row)]
        table.add_row(*short[:data], *short[data + 1 :])
    Console().print(table)
    sources = ", ".join(sorted({row[data] for row in body}))
    print(f"Test part of {sources}. rate: spikes per neuron and step; energy per sample by")
    print("the paper rule at 45 nm, 4.6 pJ a multiply-accumulate and 0.9 pJ an accumulate.")
