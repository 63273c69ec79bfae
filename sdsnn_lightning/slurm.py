"""Runs under Slurm: notice is taken between two steps, the job is queued anew, and it goes on in its own run folder.

Lightning has a requeueing of its own, which this replaces. It saves from within the signal's handler, so in the middle
of a step, with every process at another one, and under a name in the current folder that every job there shares.
"""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from sdsnn_lightning import runs
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.faults import StopTogether
from sdsnn_lightning.whole import write_text

JOB_VARIABLES = ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")
"""What a run needs to know of its job, and to queue it anew. Slurm's others make a process one rank of several."""
ODD_STEPS = 0xFFFFFFF0  # from here on, numbers are not of a step that srun started but of the shell that salloc opened


def job() -> str | None:
    """The Slurm job that this process belongs to, as `scontrol` takes it; None outside of Slurm."""
    if "SLURM_ARRAY_JOB_ID" in os.environ and "SLURM_ARRAY_TASK_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def leave_shells_alone() -> None:
    """Lets Lightning start its processes itself wherever `srun` has not started this one as a task.

    That is so in a shell of `salloc` or `srun --pty`, and in a batch script without `srun`. Lightning goes by the job's
    name alone, would take this process for one of `--ntasks`, and wait for the others.
    """
    step = os.environ.get("SLURM_STEP_ID", "")
    started = step.isdecimal() and int(step) < ODD_STEPS and "SLURM_PTY_PORT" not in os.environ
    if job() is not None and not started:
        os.environ["SLURM_JOB_NAME"] = "interactive"  # Lightning's documented word for it


def check_tasks(trainer: Trainer) -> Trainer:
    """Refuses a run of more or fewer processes than `srun` has started; Lightning would go on with those there are.

    Args:
        trainer: Just made.

    Returns:
        The same Trainer.

    Raises:
        ConfigError: If the numbers differ.
    """
    environment = trainer._accelerator_connector.cluster_environment
    wanted = trainer.num_devices * trainer.num_nodes
    if isinstance(environment, SLURMEnvironment) and environment.world_size() != wanted:
        raise ConfigError(
            f"trainer.devices x trainer.num_nodes is {wanted}, but Slurm has started {environment.world_size()} tasks; "
            "give sbatch or srun as many --nodes and --ntasks-per-node"
        )
    return trainer


def earlier_folder(place: Path, name: str, version: int | None, words: list[str]) -> Path | None:
    """Finds the run folder that this very run wrote into before its job was queued anew.

    A job keeps its number when it is queued anew. But numbers are given again, so that of a fresh job means nothing.

    Args:
        place: Folder that all run folders lie in.
        name: Name of the experiment.
        version: Number of the run folder, if it was given.
        words: The command line, which tells several runs of one job apart.

    Returns:
        The folder, or None where the job was not queued anew or has not come that far.
    """
    if job() is None or os.environ.get("SLURM_RESTART_COUNT", "0") in ("", "0"):
        return None
    for folder in reversed(runs.versions(place, name)):
        mark = _read(folder)
        given = version is not None and folder.name == f"version_{version}"
        if mark.get("job") == job() and (given or (version is None and mark.get("words") == words)):
            return folder
    return None


def mark(folder: Path, words: list[str]) -> None:
    """Notes in a run folder which run of this job writes there; without effect outside of Slurm.

    Args:
        folder: The run folder.
        words: The command line.
    """
    if job() is None or _read(folder).get("job") == job():
        return
    write_text(folder / runs.MARK, json.dumps({"job": job(), "words": words}))


def _read(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / runs.MARK).read_text())
    except (OSError, ValueError):
        return {}


def requeue() -> str | None:
    """Queues this process's job anew, which also ends it.

    Returns:
        Why that was refused, or None.
    """
    command = ["scontrol", "requeue", str(job())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else None


class Requeue(StopTogether):
    """Takes Slurm's notice, SIGUSR1 or SIGTERM, and stops all processes together; the job is then queued anew.

    It stops after a batch, never within an accumulated one, so what `last.ckpt` keeps is exact; a validation that is
    due is finished first. After SIGTERM Slurm ends the job anyway, for good or to queue it anew itself, so it is only
    queued anew from here after SIGUSR1.
    """

    def __init__(self, words: list[str]) -> None:
        """Creates the callback and listens for SIGUSR1 at once, which would end the process otherwise.

        Args:
            words: The command line.
        """
        super().__init__()
        self.words = words
        self._listen(self._note, signal.SIGUSR1)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Marks the run folder as this job's, and takes requeueing out of Lightning's hands."""
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment):
            environment.auto_requeue = False
        folder = trainer.log_dir  # asked on every process: they tell each other
        if folder is not None and trainer.is_global_zero:
            mark(Path(folder), self.words)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes SIGTERM over, also of one process alone, which is then stopped the same way."""
        super().on_train_start(trainer, pl_module)
        self._handles = True
        self._listen(self._note, signal.SIGUSR1, signal.SIGTERM)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Asks all processes whether one has got notice, and after which; they then stop after this batch."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._agreed and trainer.strategy.reduce_boolean_decision(signal.SIGUSR1 in self.notices, all=False):
            self.notices.add(signal.SIGUSR1)

    def queue_anew(self) -> None:
        """Queues the job anew if that is what it got notice of; this ends the job.

        Called when the state is kept and W&B has the run: with this process Slurm also ends that of W&B.
        """
        if signal.SIGUSR1 not in self.notices or runs.process_rank() != 0:
            return
        self._listen(self._note, signal.SIGTERM)  # which now comes; this process has ended its work and will say so
        refused = requeue()
        if refused is None:
            rank_zero_info(f"Slurm gave notice: job {job()} is queued anew and will go on from here")
        else:
            rank_zero_warn(
                f"Slurm gave notice, but job {job()} cannot be queued anew ({refused}); "
                "submit it again with --ckpt_path last"
            )
