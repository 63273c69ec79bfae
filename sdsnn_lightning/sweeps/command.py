"""`sdsnn sweep`: runs the trials of a sweep's YAML, follows them, and says which was best."""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from sdsnn_lightning.cli import TERMINATED
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.sweeps.outcome import finish
from sdsnn_lightning.sweeps.records import FINISHED, Record, epochs_in, last_line, write_record
from sdsnn_lightning.sweeps.space import OWN_KEYS, Sweep, read_sweep
from sdsnn_lightning.sweeps.table import Board
from sdsnn_lightning.sweeps.trial import Job
from sdsnn_lightning.whole import write_text

if TYPE_CHECKING:
    from sdsnn_lightning.sweeps.check import Plan

TEXT = """Runs one experiment with many settings, on Ray Tune. A killed or interrupted sweep goes on with the
same command; finished trials are not repeated. Further words, like --trainer.max_epochs=5, are given to every trial."""


def main(args: list[str]) -> None:
    """Runs a sweep.

    Args:
        args: Command-line words after `sweep`.

    Raises:
        ConfigError: If the sweep cannot work, before its first trial; or if no trial ran to its end.
    """
    parser = argparse.ArgumentParser(
        prog="sdsnn sweep",
        description=TEXT,
        epilog="example: sdsnn sweep experiments/sweeps/seye_alpha.yaml",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, help="The sweep's YAML: config, space, metric, and so on.")
    parser.add_argument("--address", help="Of a running Ray cluster, `auto` or host:port; this machine alone without.")
    parser.add_argument("--list", action="store_true", help="Check the sweep, print every trial's command, run none.")
    parser.add_argument("--retry_failed", action="store_true", help="Run the trials again that have failed.")
    options, extra = parser.parse_known_args(args)
    sweep = read_sweep(options.file, _extra(extra))

    from sdsnn_lightning.sweeps.check import check_space

    plan = check_space(sweep)
    folder = plan.runs / sweep.name
    jobs = make_jobs(sweep, plan, folder)
    if options.list:
        for job in jobs:
            print(job.fresh.command)
        return
    _run(sweep, plan, folder, jobs, options)


def _extra(words: Sequence[str]) -> tuple[str, ...]:
    """Checks the overrides for every trial: written with `=`, and none of the sweep's own but `--runs`."""
    for word in words:
        key, equals, _ = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not equals:
            raise ConfigError(f"{word}: no option of sweep; give overrides for the trials as --key=value")
        if key in OWN_KEYS and key != "runs":
            raise ConfigError(f"--{key} is set by the sweep itself; leave it out")
    return tuple(words)


def make_jobs(sweep: Sweep, plan: "Plan", folder: Path) -> list[Job]:
    """Makes the trials of a sweep.

    Args:
        sweep: As its YAML states it.
        plan: What the experiment's parser says about it.
        folder: Of the sweep, `<runs>/<sweep>`; each trial is an experiment of its own in it.

    Returns:
        One job a trial. Trials `<folder>/trial_<n>` run in `version_0` there.
    """
    from sdsnn_lightning.sweeps.check import own_environment
    from sdsnn_lightning.teacher_first import LAUNCHER_VARIABLES

    jobs = []
    for index, settings in enumerate(sweep.trials()):
        name = f"trial_{index:03d}"
        words = [*sweep.words(settings), f"--name={sweep.name}/{name}", "--version=0", f"--wandb.group={sweep.name}"]
        command = shlex.join(["lightning", "fit", *words])
        environment = own_environment(sweep.cpus)
        fresh = Record(index, settings, command, str(folder / name / "version_0"), environment["OMP_NUM_THREADS"])
        job = Job(fresh, tuple(words), folder.absolute() / name, str(Path.cwd()), sweep.metric, plan.epochs[index],
                  sweep.test, environment, LAUNCHER_VARIABLES)  # fmt: skip
        jobs.append(job)
    return jobs


def _run(sweep: Sweep, plan: "Plan", folder: Path, jobs: list[Job], options: argparse.Namespace) -> None:
    """Runs what is not finished, and ends with table, pictures and `best.yaml`."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    stop = Termination()
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with FileLock(folder / ".sweep.lock", timeout=0):
            began = _same_sweep(sweep, plan, folder, jobs)
            if options.retry_failed:
                _forget_failed(jobs)
            records = [job.read() for job in jobs]
            waiting = [job.fresh.index for job, record in zip(jobs, records, strict=True)
                       if not record.finished(sweep.test)]  # fmt: skip
            if waiting:
                if not began:
                    print(f"checking one batch of {' + '.join(sweep.config)}", flush=True)
                    _check_batch(sweep, plan, folder, jobs)
                _run_waiting(sweep, plan, folder, jobs, records, waiting, options.address, stop)
            finish(sweep, plan, folder, [job.read() for job in jobs])
    except Timeout:
        raise ConfigError(f"{folder}: this sweep is running already; wait for it or stop it") from None
    except KeyboardInterrupt:
        if not stop.came:
            raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if stop.came:
        raise SystemExit(TERMINATED)  # out of the handler above, so that its interruption is not taken for Ctrl-C


class Termination:
    """SIGTERM ends a sweep like Ctrl-C does.

    Ray lets nothing but a `KeyboardInterrupt` through, and that as one of its own.

    Attributes:
        came: Whether the signal has come.
    """

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        self.came = True
        raise KeyboardInterrupt


def _check_batch(sweep: Sweep, plan: "Plan", folder: Path, jobs: list[Job]) -> None:
    """Looks for the metric in one batch of the experiment, and notes what this sweep is."""
    from sdsnn_lightning.runs import release
    from sdsnn_lightning.sweeps.check import check_metric

    try:
        check_metric(sweep, plan)
    except ConfigError:
        (folder / ".sweep.lock").unlink(missing_ok=True)
        release(folder)
        raise
    write_text(folder / "sweep.json", json.dumps(_identity(sweep, plan, jobs), indent=2) + "\n")


def _identity(sweep: Sweep, plan: "Plan", jobs: list[Job]) -> dict[str, Any]:
    """What must not change while a sweep's folder is in use."""
    trials = [job.fresh.settings for job in jobs]
    return {"metric": sweep.metric, "mode": sweep.mode, "experiment": plan.digest, "trials": trials}


def _same_sweep(sweep: Sweep, plan: "Plan", folder: Path, jobs: list[Job]) -> bool:
    """Whether the sweep has begun earlier. More trials of the same kind may have been added since.

    Raises:
        ConfigError: If the folder belongs to another sweep.
    """
    path = folder / "sweep.json"
    if not path.is_file():
        return False
    try:
        then = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ConfigError(f"{path} cannot be read; delete {folder} to begin anew") from None
    now = json.loads(json.dumps(_identity(sweep, plan, jobs)))
    count = len(then.get("trials", []))
    if now["trials"][:count] != then.get("trials"):
        differs = "space"
    else:
        differs = next((key for key in ("metric", "mode", "experiment") if then.get(key) != now[key]), "")
    if differs:
        raise ConfigError(
            f"{sweep.file}: {folder} was begun with another {differs}; give another name, or delete the folder"
        )
    write_text(path, json.dumps(now, indent=2) + "\n")
    return True


def _forget_failed(jobs: list[Job]) -> None:
    """Lets failed trials begin anew, from their last checkpoint if there is one."""
    for job in jobs:
        record = job.read()
        if record.state == "failed":
            record.state, record.error = "interrupted", ""
            write_record(job.folder, record)


def _run_waiting(sweep: Sweep, plan: "Plan", folder: Path, jobs: list[Job], records: list[Record],
                 waiting: list[int], address: str | None, stop: "Termination") -> None:  # fmt: skip
    """Trains missing teachers, then the trials; whatever ends it, no process is left."""
    from sdsnn_lightning.sweeps import engine

    print(f"{len(waiting)} of {len(jobs)} trials to run; their output: {folder}/trial_*/output.txt", flush=True)
    try:
        with engine.cluster(sweep, address):
            signal.signal(signal.SIGTERM, stop)  # Ray has put its own in the place
            for number, (teacher, words) in enumerate(plan.teachers.items()):
                output = folder.absolute() / f"teacher_{number}.txt"
                print(f"training the teacher of the trials first: {teacher} (output: {output})", flush=True)
                command = [sys.executable, "-m", "sdsnn_lightning.sweeps.teacher", *words]
                code = engine.train_teacher(sweep, command, output, jobs[0].environment, jobs[0].dropped)
                if code != 0:
                    raise ConfigError(f"the teacher {teacher} could not be trained: {last_line(output)}; see {output}")
            board = Board(sweep, records, plan.epochs)
            # ASHA compares with all trials there are: it is shown the finished ones again.
            wanted = list(range(len(jobs))) if sweep.scheduler == "asha" else waiting
            with board:
                engine.run_trials(sweep, jobs, wanted, folder, lambda *event: _note(sweep, jobs, board, *event))
    finally:
        engine.wait_until_ended(jobs)


def _note(sweep: Sweep, jobs: list[Job], board: Board, index: int, event: dict[str, Any]) -> None:
    """Takes what happened to a trial into the board, and into the record of one that ASHA has stopped."""
    if board.records[index].finished(sweep.test):
        return
    job, record = jobs[index], jobs[index].read()
    if not event.get("ended"):
        record.state = "running" if record.state not in FINISHED else record.state
        record.history = [pair for pair in epochs_in(job.metrics, sweep.metric) if pair[0] < event.get("epoch", 0)]
    elif event.get("lost"):
        record.state, record.error = "failed", "its worker died; see the machine's memory and Ray's log"
        write_record(job.folder, record)
    elif record.state == "running":  # it has not said how it ended: ASHA has stopped it
        record.state = "stopped"
        record.history = [pair for pair in epochs_in(job.metrics, sweep.metric) if pair[0] < event["epoch"]]
        write_record(job.folder, record)
    board.records[index] = record
    if event.get("ended"):
        board.say(index)
