"""What a sweep ends with: the sorted table, pictures, and the best trial's configuration as an experiment."""

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.sweeps.records import Record
from sdsnn_lightning.sweeps.space import Sweep
from sdsnn_lightning.sweeps.table import csv_text, ranked, table, winner
from sdsnn_lightning.whole import write_text

if TYPE_CHECKING:
    from sdsnn_lightning.sweeps.check import Plan


def finish(sweep: Sweep, plan: "Plan", folder: Path, records: list[Record]) -> None:
    """Prints the sorted table and writes `trials.csv`, the pictures and `best.yaml`.

    Args:
        sweep: As its YAML states it.
        plan: For the length of the trials.
        folder: Of the sweep.
        records: Of all trials.

    Raises:
        ConfigError: If no trial ran to its end.
    """
    from rich.console import Console

    from sdsnn_lightning.sweeps.pictures import save_pictures

    rows = ranked(records, sweep.mode)
    Console().print(table(rows, sweep, plan.epochs))
    for record in rows:
        if record.state == "failed":
            print(f"trial {record.index} failed: {record.error} ({folder}/trial_{record.index:03d}/output.txt)")
    write_text(folder / "trials.csv", csv_text(records, sweep))
    pictures = save_pictures(folder, records, sweep)
    best = winner(records, sweep.mode)
    if best is None:
        raise ConfigError(f"no trial of {sweep.name} ran to its end; see {folder}/trial_*/output.txt")
    write_text(folder / "best.yaml", best_yaml(sweep, best))
    print(f"best: trial {best.index}, {sweep.metric} {best.value(sweep.mode):.4f}; again: ", end="")
    print(f"lightning fit --config {folder}/best.yaml")
    print(f"table: {folder}/trials.csv", *(f"picture: {path}" for path in pictures), sep="\n")


def best_yaml(sweep: Sweep, best: Record) -> str:
    """The whole configuration of the best trial, as an experiment of its own.

    Args:
        sweep: For its name.
        best: A trial that ran to its end.

    Returns:
        YAML; with the same number of threads it gives the trial's numbers again.
    """
    config = yaml.safe_load(Path(best.folder, "config.yaml").read_text(encoding="utf-8"))
    config["name"], config["version"], config["ckpt_path"] = f"{sweep.name}_best", None, None
    config["wandb"]["group"] = None
    says = [
        f"Trial {best.index} of the sweep {sweep.name}: {sweep.metric} {best.value(sweep.mode)} at its best epoch.",
        f"It ran on OMP_NUM_THREADS={best.threads}; another number rounds otherwise.",
        best.command,
    ]
    return "".join(f"# {line}\n" for line in says) + yaml.safe_dump(config, sort_keys=False)
