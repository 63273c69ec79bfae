"""A sweep as its YAML states it: which experiment, which settings, how many trials."""

import itertools
import json
import math
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sdsnn_lightning.errors import ConfigError

KINDS = ("grid", "choice", "uniform", "loguniform")
SCHEDULERS = ("none", "asha")
OWN_KEYS = ("config", "name", "runs", "version", "ckpt_path", "wandb.group")
"""Keys that the sweep itself gives to every trial."""
KEYS = ("name", "config", "space", "metric", "mode", "num_samples", "seed", "resources", "scheduler", "grace_epochs",
        "reduction_factor", "test")  # fmt: skip


@dataclass(frozen=True)
class Range:
    """How one key varies.

    Attributes:
        kind: `grid` (every value, in every combination), `choice` (one at random), `uniform` or `loguniform`.
        values: The values of grid and choice; low and high of the other two.
    """

    kind: str
    values: tuple[Any, ...]

    def draw(self, generator: random.Random) -> Any:
        """Draws one value; not for a grid."""
        if self.kind == "choice":
            return generator.choice(self.values)
        low, high = self.values
        if self.kind == "uniform":
            return generator.uniform(low, high)
        return min(max(math.exp(generator.uniform(math.log(low), math.log(high))), low), high)


@dataclass(frozen=True)
class Sweep:
    """The content of a sweep's YAML.

    Attributes:
        file: The YAML, for messages.
        name: Names the folder `<runs>/<name>/` and the W&B group.
        config: The experiment and its overlays, as given to `--config`.
        space: How each dotted configuration key varies.
        metric: Column of `metrics.csv` that decides; a trial's value is its best epoch's.
        mode: `max` or `min`.
        num_samples: How often the grid is run through, with the other keys drawn anew each time.
        seed: Of those draws.
        cpus: CPU cores of a trial; also its number of threads, unless OMP_NUM_THREADS is set.
        gpus: GPUs of a trial; a fraction shares one.
        scheduler: `none`, or `asha`, which stops trials early that are behind at the same epoch.
        grace_epochs: Epochs that every trial is given under `asha`.
        reduction_factor: Under `asha`, one in so many trials goes on at each rung.
        test: Whether to run `test --ckpt_path best` after each fit.
    """

    file: Path
    name: str
    config: tuple[str, ...]
    space: dict[str, Range]
    metric: str
    mode: str = "max"
    num_samples: int = 1
    seed: int = 1
    cpus: float = 1
    gpus: float = 0
    scheduler: str = "none"
    grace_epochs: int = 1
    reduction_factor: int = 3
    test: bool = False
    extra: tuple[str, ...] = field(default=())
    """Words of the command line that every trial is given after the configs."""

    def trials(self) -> list[dict[str, Any]]:
        """The settings of every trial by key, in order. More samples only append."""
        generator = random.Random(self.seed)
        grid = {key: entry.values for key, entry in self.space.items() if entry.kind == "grid"}
        drawn = {key: entry for key, entry in self.space.items() if entry.kind != "grid"}
        found = []
        for _ in range(self.num_samples):
            for values in itertools.product(*grid.values()):
                chosen = dict(zip(grid, values, strict=True)) | {k: e.draw(generator) for k, e in drawn.items()}
                found.append({key: chosen[key] for key in self.space})
        return found

    def words(self, overrides: dict[str, Any]) -> list[str]:
        """The command line of one trial after `fit`, as a person would type it."""
        configs = [word for path in self.config for word in ("--config", path)]
        return [*configs, *self.extra, *(word(key, value) for key, value in overrides.items())]


def word(key: str, value: Any) -> str:
    """One override, `--key=value`; what is not text is written as JSON, which is YAML, too."""
    return f"--{key}={value if isinstance(value, str) else json.dumps(value)}"


def read_sweep(path: Path, extra: tuple[str, ...] = ()) -> Sweep:
    """Reads and checks a sweep's YAML. Keys of the experiment are checked later, by its own parser.

    Args:
        path: The file.
        extra: Overrides for every trial from the command line.

    Returns:
        The sweep.

    Raises:
        ConfigError: If the file or an experiment is missing, or an entry cannot be right; it names the key.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; give a sweep's YAML, for instance from experiments/sweeps")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}; mend it") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no keys; give at least config, space and metric")

    def refuse(key: str, reason: str) -> ConfigError:
        return ConfigError(f"{path}: {key}: {reason}")

    for key in content:
        if key not in KEYS:
            raise refuse(str(key), f"no such key; use {', '.join(KEYS)}")
    for key in ("config", "space", "metric"):
        if not content.get(key):
            raise refuse(key, "missing; a sweep needs config, space and metric")
    config = content["config"] if isinstance(content["config"], list) else [content["config"]]
    for file in config:
        if not Path(str(file)).is_file():
            raise refuse("config", f"{file} does not exist; give the experiment's YAML as seen from the current folder")
    name = content.get("name", path.stem)
    if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]*", name):
        raise refuse("name", f"{name!r} cannot name a folder; use letters, digits, _, - and, not as the first, dots")
    metric = content["metric"]
    if not isinstance(metric, str) or metric.startswith("test/"):
        raise refuse("metric", f"{metric!r} cannot decide; name a column of metrics.csv, for instance val/UAR")
    for key, allowed in (("mode", ("max", "min")), ("scheduler", SCHEDULERS), ("test", (True, False))):
        if key in content and content[key] not in allowed:
            raise refuse(key, f"{content[key]!r} is none of {', '.join(map(str, allowed))}")
    for key, least in (("num_samples", 1), ("seed", 0), ("grace_epochs", 1), ("reduction_factor", 2)):
        value = content.get(key, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise refuse(key, f"{value!r}; give a whole number of at least {least}")
    resources = content.get("resources") or {}
    if not isinstance(resources, dict) or not set(resources) <= {"cpus", "gpus"}:
        raise refuse("resources", "give cpus and gpus of one trial, for instance {cpus: 2, gpus: 1}")
    cpus, gpus = resources.get("cpus", 1), resources.get("gpus", 0)
    for key, number, whole_from in (("cpus", cpus, 0), ("gpus", gpus, 1)):
        known = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        amount = number if known else -1
        if amount < 0 or (amount == 0 and key == "cpus") or (amount > whole_from and amount != int(amount)):
            raise refuse(f"resources.{key}", f"{number!r}; give a whole number, 0.5 shares a GPU between two")
    if not isinstance(content["space"], dict):
        raise refuse("space", "give how each key varies, for instance model.init_args.alpha: {grid: [0.3, 0.5]}")
    space = {str(key): _range(f"{path}: space", str(key), entry) for key, entry in content["space"].items()}
    if content.get("num_samples", 1) > 1 and all(entry.kind == "grid" for entry in space.values()):
        raise refuse("num_samples", "more than 1 repeats the trials of a grid; vary seed_everything in space instead")
    options = ("mode", "num_samples", "seed", "scheduler", "grace_epochs", "reduction_factor", "test")
    chosen = {key: content[key] for key in options if key in content}
    files = tuple(str(file) for file in config)
    return Sweep(path, name, files, space, metric, cpus=cpus, gpus=gpus, extra=extra, **chosen)


def _range(where: str, key: str, entry: Any) -> Range:
    """Checks how one key varies; numbers like 1e-4, which YAML reads as text, are taken for what they mean."""
    if key in OWN_KEYS:
        raise ConfigError(f"{where}: {key}: set by the sweep itself; leave it out")
    if not isinstance(entry, dict) or len(entry) != 1 or next(iter(entry)) not in KINDS:
        raise ConfigError(f"{where}: {key}: say how it varies with one of {', '.join(KINDS)}")
    kind, values = next(iter(entry.items()))
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{where}: {key}: {kind} needs a list of values")
    if kind in ("grid", "choice"):
        if any(values.index(value) != place for place, value in enumerate(values)):
            raise ConfigError(f"{where}: {key}: {kind} names a value twice; leave one out")
        try:
            json.dumps(values)  # as `word` and the trials' records will
        except TypeError:
            raise ConfigError(f"{where}: {key}: {kind} names a date or the like; put it in quotes") from None
        return Range(kind, tuple(values))
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: {key}: {kind} needs two numbers, [low, high]") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{where}: {key}: {kind} from {low:g} to {high:g}; give low below high")
    if kind == "loguniform" and low <= 0:
        raise ConfigError(f"{where}: {key}: loguniform starts at {low:g}; give a low above 0")
    return Range(kind, (low, high))
