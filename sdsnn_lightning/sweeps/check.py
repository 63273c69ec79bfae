"""What is wrong with a sweep, found before its first trial: by the experiment's own parser, and by one batch of it."""

import contextlib
import csv
import functools
import hashlib
import io
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings

from sdsnn_lightning.cli import DEFAULTS, TRAINER_WORDS, _user_error
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.experiment import Experiment
from sdsnn_lightning.quiet import keep_quiet
from sdsnn_lightning.sweeps.process import GuardedProcess
from sdsnn_lightning.sweeps.records import last_line
from sdsnn_lightning.sweeps.space import Sweep, word
from sdsnn_lightning.teacher_first import LAUNCHER_VARIABLES

ONE_BATCH = (
    "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.max_steps=1",
    "--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=1.0", "--trainer.log_every_n_steps=1",
    "--trainer.accumulate_grad_batches=1", "--trainer.accelerator=cpu", "--trainer.devices=1",
    "--trainer.num_nodes=1", "--trainer.strategy=auto", "--trainer.precision=32-true",
)  # fmt: skip
"""Makes any experiment one step and one batch of validation, on the machine the sweep is started on."""


@dataclass(frozen=True)
class Plan:
    """What the parser says about a sweep.

    Attributes:
        runs: Folder that all run folders lie in.
        epochs: Of each trial; 0 where the length is not given in epochs.
        teacher_keys: Which arguments of its model name a teacher's weights, or what trains them.
        teachers: Command lines, one a teacher that is not there yet, by its checkpoint.
        digest: Of the experiment's files and the words for every trial.
    """

    runs: Path
    epochs: list[int]
    teacher_keys: list[str]
    teachers: dict[str, list[str]]
    digest: str


class _Ready(Exception):
    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment


class _Reader(Experiment):
    """An experiment that stops where it would read its command line."""

    def parse_arguments(self, parser: Any, args: Any) -> None:
        raise _Ready(self)


class Reader:
    """Reads command lines of `fit` exactly as `fit` does, without running them."""

    def __init__(self) -> None:
        keep_quiet()
        set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
        modes = {word: {"default_config_files": [str(DEFAULTS)], "parser_mode": "omegaconf+"} for word in TRAINER_WORDS}
        try:
            _Reader(args=["fit"], parser_kwargs={"parser_mode": "omegaconf+", **modes})
        except _Ready as ready:
            self.experiment = ready.experiment

    def dump(self, words: list[str], build: bool = False) -> str:
        """Resolves a command line.

        Args:
            words: After `fit`.
            build: Also make data module, networks and callbacks, which check their own arguments.

        Returns:
            The whole configuration, as YAML.

        Raises:
            ConfigError: With what `fit` itself would say.
        """
        parser = self.experiment.parser
        with _captured() as said:
            try:
                parsed = parser.parse_args(["fit", *words])
                if build:
                    parser.instantiate_classes(parsed)
                return self.experiment._parser("fit").dump(parsed["fit"], skip_none=False)
            except SystemExit:
                lines = said.getvalue().strip().splitlines() or ["refused"]
                reason = lines[-1].removeprefix("error: ").partition(" (all keys: ")[0]
            except Exception as error:
                reason = str(_user_error(error) or f"{type(error).__name__}: {error}")
        raise ConfigError(" ".join(reason.split()))

    def resolve(self, words: list[str], build: bool = False) -> dict[str, Any]:
        """As `dump`, read back."""
        return yaml.safe_load(self.dump(words, build))


@functools.cache
def fit_reader() -> Reader:
    """The reader of this process; to make it takes as long as to read several command lines."""
    return Reader()


@contextlib.contextmanager
def _captured() -> Iterator[io.StringIO]:
    """Keeps what parsing prints, and its warnings, out of the terminal."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield said


def _teacher(config: dict[str, Any]) -> str | None:
    """The checkpoint that `fit` would train a teacher for, if it is not there."""
    model = config["model"].get("init_args") or {}
    path = model.get("teacher_checkpoint")
    return path if path and model.get("teacher_experiment") and not Path(path).is_file() else None


def _facts(config: dict[str, Any]) -> tuple[str | None, int]:
    """What of a configuration the sweep must know: its missing teacher and its number of epochs."""
    return _teacher(config), max(config["trainer"].get("max_epochs") or 0, 0)


def check_space(sweep: Sweep) -> Plan:
    """Gives the experiment's parser every value of grid and choice, and both ends of each range.

    Args:
        sweep: As its YAML states it.

    Returns:
        What follows for its trials. Trials that name one teacher share it: it is trained by the experiment as it is,
        plus those keys of the space that name its file.

    Raises:
        ConfigError: Naming the sweep's file, the key and the value, with what the experiment says about it.
    """
    reader = fit_reader()
    try:
        config = reader.resolve(sweep.words({}), build=True)
    except ConfigError as error:
        raise ConfigError(f"{sweep.file}: the experiment itself is refused: {error}") from None
    if config["trainer"].get("logger") not in (None, True):
        raise ConfigError(f"{sweep.file}: trainer.logger is set, but a sweep reads metrics.csv; leave it out")
    base = _facts(config)
    if sweep.scheduler == "asha" and base[1] == 0:
        raise ConfigError(f"{sweep.file}: scheduler: asha compares epochs; set trainer.max_epochs in the experiment")
    deciding = set()  # keys on which teacher or length depend
    for key, entry in sweep.space.items():
        for value in entry.values:
            try:
                facts = _facts(reader.resolve(sweep.words({key: value}), build=True))
            except ConfigError as error:
                raise ConfigError(f"{sweep.file}: space: {word(key, value).removeprefix('--')}: {error}") from None
            if facts != base:
                deciding.add(key)
    epochs: list[int] = []
    teachers: dict[str, list[str]] = {}
    known: dict[str, tuple[str | None, int]] = {}
    for settings in sweep.trials():
        words = sweep.words({key: value for key, value in settings.items() if key in deciding})
        line = "\0".join(words)
        if line not in known:
            known[line] = _facts(reader.resolve(words)) if deciding else base
        teacher, length = known[line]
        epochs.append(length)
        if teacher is not None:
            teachers.setdefault(teacher, sweep.words({}) if teacher == base[0] else words)
    # Of the files, not of what they resolve to: a newer version of this program may know more keys.
    content = b"\0".join([*(Path(path).read_bytes() for path in sweep.config), *(w.encode() for w in sweep.extra)])
    digest = hashlib.sha256(content).hexdigest()
    given = config["model"].get("init_args") or {}
    teacher_keys = [key for key in ("teacher_checkpoint", "teacher_experiment") if given.get(key)]
    return Plan(Path(config["runs"]), epochs, teacher_keys, teachers, digest)


def own_environment(cpus: float) -> dict[str, str]:
    """The variables that trials get beside those of their machine: threads as the cores, and this program's modules."""
    passed = ("PYTHONPATH", "WANDB_MODE", "WANDB_BASE_URL", "OMP_NUM_THREADS")
    threads = {"OMP_NUM_THREADS": str(max(1, int(cpus)))}
    return threads | {name: os.environ[name] for name in passed if name in os.environ}


def check_metric(sweep: Sweep, plan: Plan) -> None:
    """Trains one batch of the experiment, with an untrained teacher, and looks for the metric in what it logs.

    Args:
        sweep: As its YAML states it.
        plan: What `check_space` said about it.

    Raises:
        ConfigError: If the experiment fails, with its error, or does not log the metric, with what it logs.
    """
    folder = Path(tempfile.mkdtemp(prefix="sdsnn-check-"))
    try:
        words = ["fit", *sweep.words({}), *ONE_BATCH, "--runs", str(folder), "--name", "check", "--version", "0"]
        words += [f"--model.init_args.{key}=null" for key in plan.teacher_keys]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHER_VARIABLES)}
        environment |= own_environment(sweep.cpus) | {"WANDB_MODE": "disabled"}
        command = [sys.executable, "-m", "sdsnn_lightning", *words]
        process = GuardedProcess(command, folder / "output.txt", folder / "lock", environment)
        if process.wait() != 0:
            said = last_line(folder / "output.txt")
            raise ConfigError(f"{sweep.file}: the experiment fails at its first batch: {said}")
        with (folder / "check/version_0/metrics.csv").open(newline="") as file:
            names = [name for name in next(csv.reader(file)) if name not in ("epoch", "step")]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if sweep.metric not in names:
        shown = sorted((name for name in names if name.count("/") == 1), key=lambda name: not name.startswith("val/"))
        raise ConfigError(
            f"{sweep.file}: metric: nothing is logged as {sweep.metric}; choose one of {', '.join(shown[:12])}"
        )
