"""Trains the teacher an experiment names, before the student's run, where its checkpoint does not exist yet."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from sdsnn_lightning import runs, slurm
from sdsnn_lightning.checkpoints import BEST, LAST
from sdsnn_lightning.cli import TERMINATED
from sdsnn_lightning.config_checks import check_names
from sdsnn_lightning.errors import ConfigError, one_line
from sdsnn_lightning.faults import plain_errors, teacher_environment
from sdsnn_lightning.whole import whole_path

# What launchers set for the ranks of one run, by the beginning of the name.
LAUNCHER_VARIABLES = (
    "RANK",
    "LOCAL_",
    "WORLD_SIZE",
    "NODE_RANK",
    "GROUP_",
    "ROLE_",
    "MASTER_",
    "TORCHELASTIC_",
    "SLURM_",
    "WANDB_RUN_ID",  # an agent names the run of the student
    "WANDB_SWEEP_",
)


def config_files(words: list[str]) -> list[str]:
    """The files a command line names with `--config` or `-c`, in order.

    Args:
        words: The command line, without the program.

    Returns:
        Their paths.
    """
    pairs = zip_longest(words, words[1:], fillvalue="")
    return [
        word.partition("=")[2] or following
        for word, following in pairs
        if word in ("--config", "-c") or word.startswith("--config=")
    ]


def trainer_words(words: list[str]) -> list[str]:
    """The overrides of the Trainer on a command line that hold for teacher and student alike, for instance limits."""
    kept: list[str] = []
    for word, following in zip_longest(words, words[1:], fillvalue="--"):
        if word.startswith("--trainer.") and not word.startswith(("--trainer.callbacks", "--trainer.logger")):
            kept += [word] if "=" in word or following.startswith("--") else [word, following]
    return kept


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a path, or with a null character
        return False


def _overlays(files: list[str]) -> list[dict[str, Any]]:
    """The overlays laid over the experiment, without what is about the student: model, name, notes, strategies."""
    # The parser takes a configuration written on the command line, too.
    contents = [yaml.safe_load(Path(file).read_text() if _is_file(file) else file) or {} for file in files[1:]]
    for content in contents:
        for key in ("model", "name", "notes", "ckpt_path"):
            content.pop(key, None)
        for key in [key for key in content.get("trainer") or {} if key.startswith("callbacks")]:
            del content["trainer"][key]
    return contents


def _shared(config: dict[str, Any]) -> dict[str, Any]:
    """What teacher and student must have in common: data, seed, place and accelerator.

    The teacher's own run trains on what will be the teacher's view, as the one view it has.
    """
    shared = {key: config[key] for key in ("data", "seed_everything", "runs", "width", "wandb")}
    data = shared["data"].get("init_args") or {}
    if data.get("teacher_step_ms") is not None:
        data = {**data, "step_ms": data["teacher_step_ms"], "teacher_step_ms": None}
        shared["data"] = {**shared["data"], "init_args": data}
    return {**shared, "trainer": {key: config["trainer"][key] for key in ("accelerator", "devices", "precision")}}


def train_missing_teacher(dumped_config: str, words: list[str]) -> None:
    """Runs the teacher's experiment if the configuration names one and its checkpoint is not there.

    The teacher is trained with the student's data, seed, overlays and `--trainer` overrides of the command line, by the
    same program in a process of its own. Its best checkpoint is then copied to `teacher_checkpoint`, in one step, so
    that a half-written file is never taken for a teacher. Where the command line or the teacher's experiment switches
    validation off, no state is the best: its last one is taken, which is said. Other ranks of a distributed run wait.
    A trial of a few batches (`trainer.fast_dev_run`) trains none, see `Distiller`.

    Args:
        dumped_config: The resolved configuration of this run, as YAML.
        words: The command line, for its `--config` files: those after the first are overlays.

    Raises:
        ConfigError: If the teacher's experiment is missing or none, has no `teacher_checkpoint`, or failed.
    """
    config = yaml.safe_load(dumped_config)
    model = config["model"].get("init_args", {})
    checkpoint, experiment = model.get("teacher_checkpoint"), model.get("teacher_experiment")
    if experiment and not checkpoint:
        raise ConfigError(
            f"model.init_args.teacher_experiment is {experiment}, but there is no teacher_checkpoint; "
            "give the path that the teacher's weights are kept under"
        )
    if not checkpoint or not experiment or Path(checkpoint).is_file():
        return
    name = _experiment_name(experiment)
    if (
        Path(checkpoint).exists() and not Path(checkpoint).is_file()
    ):  # the trained teacher would take its place: a folder's, or a device's
        raise ConfigError(f"model.init_args.teacher_checkpoint: {checkpoint} is no file; give another path")
    if config["trainer"]["fast_dev_run"]:
        return
    if runs.process_rank() != 0:
        while not Path(checkpoint).is_file():
            time.sleep(1.0)
        return
    with plain_errors(Path(checkpoint).parent):
        Path(checkpoint).parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{checkpoint}.lock"):
            if not Path(checkpoint).is_file():  # another run may have trained it while this one waited
                _train(Path(checkpoint), experiment, name, config, words)


def _experiment_name(experiment: str) -> str:
    """The name that the teacher's experiment has, under which its runs lie.

    Raises:
        ConfigError: If the file is no experiment, or its name is none.
    """
    key = f"model.init_args.teacher_experiment: {experiment}"
    if not Path(experiment).is_file():
        raise ConfigError(f"{key} does not exist; give the teacher's YAML")
    try:
        content = yaml.safe_load(Path(experiment).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{key} is no YAML ({one_line(error)[:200]}); correct it") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{key} holds no settings; give the teacher's YAML")
    name = content.get("name", "run")
    if not isinstance(name, str) or "${" in name:
        raise ConfigError(f"{key}: name is {name!r}; write a text there, without ${{...}}")
    try:
        check_names(name, "runs")
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
    return name


def _train(target: Path, experiment: str, name: str, config: dict[str, Any], words: list[str]) -> None:
    """Runs the teacher's experiment in a folder reserved for it, and copies its checkpoint to `target`."""
    rank_zero_info(f"{target} does not exist: training the teacher first ({experiment})")
    place, run = Path(config["runs"]), ["teacher", str(target)]
    # In a job of Slurm that was queued anew, the teacher goes on in its own folder, too.
    run_folder = slurm.earlier_folder(place, name, None, run) or place / name / f"version_{runs.reserve(place, name)}"
    slurm.mark(run_folder, run)
    with tempfile.TemporaryDirectory() as folder:
        files = [experiment]
        for number, overlay in enumerate([*_overlays(config_files(words)), _shared(config)]):
            files.append(str(Path(folder, f"{number}.yaml")))
            Path(files[-1]).write_text(yaml.safe_dump(overlay))
        command = [sys.executable, "-m", "sdsnn_lightning", "fit", *(word for f in files for word in ("--config", f))]
        command += [*trainer_words(words), "--trainer.num_nodes", "1"]  # only this node's first process starts it
        command += ["--version", run_folder.name.removeprefix("version_")]
        # The teacher's run is a run of its own: it must not take itself for one rank of this one.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHER_VARIABLES)}
        environment |= {k: os.environ[k] for k in slurm.JOB_VARIABLES if k in os.environ} | teacher_environment()
        process = subprocess.Popen(command, env=environment)
        try:
            code = process.wait()
        except KeyboardInterrupt:  # the terminal interrupts the teacher, too; it keeps its state before it ends
            process.terminate()
            process.wait()
            raise
    if code == TERMINATED:  # told to end, it has kept its state
        raise SystemExit(code)
    best, last = (run_folder / "checkpoints" / name for name in (BEST, LAST))
    kept = best if best.is_file() else last
    if code != 0 or not kept.is_file():
        runs.release(run_folder)
        if code == 0:
            raise ConfigError(f"training the teacher left no checkpoint; train {experiment} by itself first")
        raise ConfigError(f"training the teacher failed with exit code {code}; see above and mend {experiment}")
    if kept == last:
        rank_zero_warn(f"the teacher was trained without validation, so none of its states is the best: taking {last}")
    with whole_path(target) as aside:
        shutil.copyfile(kept, aside)
    rank_zero_info(f"teacher trained: {target}")
