"""Run folders: `<runs>/<experiment>/version_<n>/` with configuration, checkpoints, metrics, results and pictures."""

import csv
import os
import re
import time
from pathlib import Path

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.folder_locks import lock_folder, unlock_folder

MARK = "slurm.json"
"""In a run folder: the job of Slurm that writes there, and the run of it that does."""

PATIENCE = 10.0
"""Seconds to wait for a run folder: loader processes of a run that was killed notice so after some five."""
_claimed: list[int] = []  # the folder this process writes, open


def versions(runs: Path, name: str) -> list[Path]:
    """Lists the run folders of one experiment, oldest first.

    Args:
        runs: Folder that all run folders lie in.
        name: Name of the experiment.

    Returns:
        The folders `version_<n>` in the order of n.
    """
    folders = [path for path in (runs / name).glob("version_*") if re.fullmatch(r"version_\d+", path.name)]
    return sorted(folders, key=lambda path: int(path.name.removeprefix("version_")))


def process_rank() -> int:
    """Rank of this process before a Trainer exists, from the variables the launchers set.

    Slurm's comes last: in a shell that Slurm opened it is 0, whatever other launcher starts processes from there.
    """
    return next((int(os.environ[key]) for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if key in os.environ), 0)


def reserve(runs: Path, name: str) -> int:
    """Makes the next free run folder, so that of two runs started at once each has its own.

    Args:
        runs: Folder that all run folders lie in.
        name: Name of the experiment.

    Returns:
        n of the folder `version_<n>`.
    """
    taken = versions(runs, name)
    number = int(taken[-1].name.removeprefix("version_")) + 1 if taken else 0
    while True:
        try:
            (runs / name / f"version_{number}").mkdir(parents=True)
            return number
        except FileExistsError:
            number += 1


def claim(folder: Path) -> None:
    """Keeps a run folder for this process, until `unclaim` or its end. Does nothing where folders have no locks.

    Args:
        folder: The folder; it is made.

    Raises:
        ConfigError: If another process has it: two of them would write over each other's checkpoints and metrics.
    """
    unclaim()
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            _claimed.append(lock_folder(folder))
        except BlockingIOError:
            if time.monotonic() > until:
                raise ConfigError(
                    f"{folder} is being written by another run; wait for its end, or leave --version and --ckpt_path "
                    "out to have a folder of its own"
                ) from None
            time.sleep(0.2)
        except OSError:  # a file system that cannot
            return
        else:
            return


def unclaim() -> None:
    """Lets other processes write the folder that this one claimed."""
    while _claimed:
        unlock_folder(_claimed.pop())


def release(folder: Path) -> None:
    """Removes a reserved folder that nothing was written into, and the experiment's if it is empty then."""
    if folder.is_dir() and [path.name for path in folder.iterdir()] == [MARK]:
        (folder / MARK).unlink()
    for path in (folder, folder.parent):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def newest_checkpoint(runs: Path, name: str, which: str) -> Path:
    """Finds `best.ckpt` or `last.ckpt` of the newest run that has one.

    Args:
        runs: Folder that all run folders lie in.
        name: Name of the experiment.
        which: `best` or `last`.

    Returns:
        The checkpoint's path.

    Raises:
        ConfigError: If no run of the experiment has one.
    """
    for folder in reversed(versions(runs, name)):
        path = folder / "checkpoints" / f"{which}.ckpt"
        if path.is_file():
            return path
    raise ConfigError(f"--ckpt_path {which}: no run in {runs / name} has a {which}.ckpt; run `lightning fit` first")


def run_folder(checkpoint: str | None, runs: Path, name: str) -> Path:
    """Finds the folder an evaluation writes into: that of the run whose checkpoint it evaluates.

    Args:
        checkpoint: Path of the checkpoint, or None for untrained weights.
        runs: Folder that all run folders lie in.
        name: Name of the experiment.

    Returns:
        The run folder; `<runs>/<name>/untrained` without a checkpoint; the checkpoint's own folder for a foreign one.
    """
    if checkpoint is None:
        return runs / name / "untrained"
    folder = Path(checkpoint).resolve().parent
    return folder.parent if folder.name == "checkpoints" else folder


def version_of(checkpoint: Path, runs: Path, name: str) -> int | None:
    """The number of the run that a checkpoint belongs to, which a resumed run goes on with.

    Args:
        checkpoint: The file.
        runs: Folder that all run folders lie in.
        name: Name of the experiment.

    Returns:
        n of `<runs>/<name>/version_<n>/checkpoints/<file>`, or None for a checkpoint from elsewhere.
    """
    folder = checkpoint.resolve().parent.parent
    if checkpoint.parent.name != "checkpoints" or folder not in [path.resolve() for path in versions(runs, name)]:
        return None
    return int(folder.name.removeprefix("version_"))


def metric_rows(path: Path) -> list[dict[str, str]]:
    """Reads a `metrics.csv`.

    Args:
        path: The file.

    Returns:
        The values of every row by name, `step` always among them. Rows that are not whole, as a killed process or a
        full disk leaves them, are left out; of a missing file there are none.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    table = csv.DictReader(line for line in lines if line.endswith("\n") and "\0" not in line)
    whole = ({k: v for k, v in row.items() if v} for row in table if None not in row and None not in row.values())
    return [row for row in whole if row.get("step", "").isdecimal()]
