"""Reads run folders, and groups the seeds and folds of one experiment."""

import csv
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sdsnn_lightning import runs
from sdsnn_lightning.charts import Curve
from sdsnn_lightning.details import read_details
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.reports.settings import experiment_settings


@dataclass
class Run:
    """One tested run.

    Attributes:
        folder: The run folder.
        name: Name of its experiment.
        results: Contents of `results.json`.
    """

    folder: Path
    name: str
    results: dict[str, Any]

    @property
    def test(self) -> dict[str, Any]:
        """The test scores."""
        return self.results["test"]

    @property
    def seed(self) -> str:
        """The seed, or the number of the folder where none was set, and the fold if it is not the set's own split."""
        return str(self.results.get("seed") or self.folder.name) + (f", fold {self.fold}" if self.fold else "")

    @property
    def fold(self) -> int:
        """The fold of a cross-validation, `data.init_args.fold`; 0, the set's own split, where the data has none."""
        return int(((self.config.get("data") or {}).get("init_args") or {}).get("fold") or 0)

    @property
    def source(self) -> str:
        """The data by its own name: its class, for recordings their folder, and whether the test set was looked at.

        One class reads many folders, and scores on one say nothing about another.
        """
        facts = [str(self.results["data_source"])]
        options = (self.config.get("data") or {}).get("init_args") or {}
        root = options.get("root")
        if root and (facts == ["real"] or options.get("source") == "real"):
            facts.append(Path(root).name)
        if self.results.get("protocol") == "test":
            facts.append("picked on test")
        return f"{self.results['data']} ({', '.join(facts)})"

    @property
    def energy(self) -> float | None:
        """Energy per sample by the paper rule, microjoules."""
        value = self.test.get("energy/paper_nJ")
        return None if value is None else value / 1000

    @property
    def rate(self) -> float | None:
        """Spikes per neuron and step; None without spiking neurons."""
        return self.test.get("firing_rate/total")

    @property
    def steps(self) -> int | None:
        """Time steps T of the tested network; None without time, or tested before they were kept."""
        return len(self.details.get("prefixes", {}).get("WAR", [])) or None

    @cached_property
    def details(self) -> dict[str, Any]:
        """Contents of `details.json`."""
        return read_details(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Contents of `config.yaml`; empty where there is none.

        Raises:
            DataError: If it is broken.
        """
        path = self.folder / "config.yaml"
        if not path.is_file():
            return {}
        try:
            return yaml.safe_load(path.read_text()) or {}
        except yaml.YAMLError:
            raise DataError(f"{path} is not valid YAML; restore it, or leave this run out") from None

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """What `metrics.csv` holds, by metric: epochs and values; the mean over the rows of one epoch."""
        path = self.folder / "metrics.csv"
        if not path.is_file():
            return {}
        found: dict[str, dict[int, list[float]]] = {}
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    value = _number(text)
                    if value is not None and name not in ("epoch", "step") and row.get("epoch"):
                        found.setdefault(name, {}).setdefault(int(float(row["epoch"])), []).append(value)
        return {
            name: (np.array(list(epochs)), np.array([np.mean(values) for values in epochs.values()]))
            for name, epochs in found.items()
        }


@dataclass
class Group:
    """The runs of one experiment that differ by their seed alone, or by it and the fold of a cross-validation.

    Attributes:
        label: Name of the experiment, with the setting that tells it from another of that name.
        runs: At least one.
    """

    label: str
    runs: list[Run] = field(default_factory=list)

    @property
    def seeds(self) -> int:
        """How many seeds there are, in the fold that has most."""
        return max(Counter(run.fold for run in self.runs).values())

    @property
    def source(self) -> str:
        """The data of all runs, and which of its folds, if another than the set's own split is among them."""
        source, folds = self.runs[0].source, sorted({run.fold for run in self.runs})
        if folds == [0]:
            return source
        return f"{source[:-1]}, {f'fold {folds[0]}' if len(folds) == 1 else f'{len(folds)} folds'})"

    def mean(self, key: str) -> float | None:
        """Mean of a test score over the runs that have it."""
        known = [run.test[key] for run in self.runs if key in run.test]
        return float(np.mean(known)) if known else None


def _number(text: str | None) -> float | None:
    """The finite number in a cell of a table, if there is one."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def read_runs(folder: Path) -> list[Run]:
    """Reads one run folder, or all versions of one experiment (the newest of each seed and fold).

    Args:
        folder: `<runs>/<experiment>/version_<n>` or `<runs>/<experiment>`.

    Returns:
        The tested runs.

    Raises:
        DataError: If there is no tested run, or a results file is broken.
    """
    folder = folder.resolve()
    single = (folder / "results.json").is_file()
    found: dict[Any, Run] = {}
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
            run = Run(path, name, content)
            found[content.get("seed") or path.name, run.fold] = run
    if not found:
        raise DataError(f"{folder} holds no tested run; run `lightning test --config ... --ckpt_path best` first")
    return list(found.values())


def collect(folders: list[Path]) -> list[Group]:
    """Reads runs and groups those that differ by seed and fold alone, in the order they were named.

    Args:
        folders: Run folders, or experiment folders; a run that is named twice counts once.

    Returns:
        The groups. Experiments of one name whose data or settings differ are groups of their own.
    """
    found = {run.folder: run for folder in folders for run in read_runs(folder)}
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in found.values():
        settings = experiment_settings(run.config)
        key = (run.name, json.dumps([run.source, settings], sort_keys=True, default=str))
        groups.setdefault(key, []).append(run)
    labels = _labels([members[0] for members in groups.values()])
    return [Group(label, members) for label, members in zip(labels, groups.values(), strict=True)]


def _labels(members: list[Run]) -> list[str]:
    """Names of groups by one run each; a name that is not unique gets the first setting that tells it apart."""
    labels = []
    for run in members:
        others = [other for other in members if other.name == run.name and other is not run]
        label = run.name
        if others:
            mine = {"data": run.source, **experiment_settings(run.config)}
            theirs = [{"data": other.source, **experiment_settings(other.config)} for other in others]
            keys = [key for key in mine if any(other.get(key) != mine[key] for other in theirs)]
            telling = [key for key in keys if all(other.get(key) != mine[key] for other in theirs)]
            chosen = telling[:1] or keys[:2]
            label += f" ({', '.join(f'{key} {mine[key]}' for key in chosen)})" if chosen else ""
        while label in labels:
            label += "'"
        labels.append(label)
    return labels
