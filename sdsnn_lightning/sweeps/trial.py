"""One trial: the very `lightning fit` a person would type, then `test`, followed epoch by epoch. Without Ray."""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdsnn_lightning.cli import INTERRUPTED, TERMINATED
from sdsnn_lightning.sweeps.process import GuardedProcess
from sdsnn_lightning.sweeps.records import FINISHED, Record, epochs_in, last_line, read_record, write_record

PERIOD = 0.5  # seconds between two looks at metrics.csv
STOPPED = (INTERRUPTED, TERMINATED, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes of a trial that somebody stopped; it goes on when the sweep does."""


@dataclass(frozen=True)
class Job:
    """What a worker must know to run one trial, wherever it is.

    Attributes:
        fresh: The trial's record before anything has run.
        words: The command line after `fit` or `test`.
        folder: Of the trial, with its output and record; on a disk that all machines share.
        place: The current folder of the command.
        metric: Column of `metrics.csv` that is followed.
        epochs: How many the fit will take; 0 where that is not known.
        test: Whether a test follows.
        environment: Variables that the command gets beside the worker's.
        dropped: Beginnings of the names of variables that it does not get.
    """

    fresh: Record
    words: tuple[str, ...]
    folder: Path
    place: str
    metric: str
    epochs: int
    test: bool
    environment: dict[str, str]
    dropped: tuple[str, ...]

    @property
    def output(self) -> Path:
        """Everything the trial printed."""
        return self.folder / "output.txt"

    @property
    def metrics(self) -> Path:
        """The growing table of its run."""
        return Path(self.place, self.fresh.folder, "metrics.csv")

    def read(self) -> Record:
        """Its record, or a fresh one."""
        return read_record(self.folder, self.fresh)


class TrialRun:
    """Runs a job, or continues one, or plays back one that is finished."""

    def __init__(self, job: Job, gpus: list[str] | None = None) -> None:
        """Starts the job's next command.

        Args:
            job: What to run.
            gpus: Identifiers of the GPUs it may use; None leaves the choice to the environment.
        """
        self.job, self.gpus = job, gpus
        self.record = job.read()
        self.reported = 0
        self.process: GuardedProcess | None = None
        self.played_back = self.record.finished(job.test)
        if not self.played_back:
            tested = self.record.state in ("fitted", *FINISHED)
            self._start("test" if tested else "fit")

    def _start(self, what: str) -> None:
        """Starts `fit`, from the last checkpoint if there is one, or `test`."""
        words = [what, *self.job.words]
        if what == "test":
            words += ["--ckpt_path", "best"]
        else:
            last = Path(self.record.folder, "checkpoints", "last.ckpt")
            words += ["--ckpt_path", str(last)] if Path(self.job.place, last).is_file() else []
        environment = {k: v for k, v in os.environ.items() if not k.startswith(self.job.dropped)}
        environment |= self.job.environment
        if self.gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        output = self.job.output
        self.what, self.began = what, time.monotonic()
        self.offset = output.stat().st_size if output.is_file() else 0
        self._note(state="fitted" if what == "test" else "running")
        command = [sys.executable, "-m", "sdsnn_lightning", *words]
        self.process = GuardedProcess(command, output, self.job.folder / ".lock", environment, self.job.place)

    def _note(self, **changes: Any) -> None:
        """Writes changes of the record."""
        for name, value in changes.items():
            setattr(self.record, name, value)
        write_record(self.job.folder, self.record)

    def next(self) -> dict[str, Any]:
        """Waits for the next epoch, or for the end of the trial.

        Returns:
            `epoch` (from 1) and the metric by its name, once there is one, and `done`. The last epoch is reported with
            the end, so that nobody stops a trial that has but its checkpoint and its test left.
        """
        while True:
            code = self.process.poll() if self.process is not None else 0
            if not self.played_back and self.what == "fit":
                self.record.history = epochs_in(self.job.metrics, self.job.metric)
            history = self.record.history
            ready = len(history) if self.played_back else len([e for e, _ in history if e + 1 != self.job.epochs])
            if self.reported < ready:
                self.reported += 1
                return self._report(done=self.played_back and self.reported == len(history))
            if code is not None:
                if self.played_back or not self._goes_on(code):
                    self.reported = len(self.record.history)
                    return self._report(done=True)
            else:
                time.sleep(PERIOD)

    def _report(self, done: bool) -> dict[str, Any]:
        """One result as Ray takes it."""
        result: dict[str, Any] = {"done": done, "state": self.record.state}
        if self.reported:
            epoch, value = self.record.history[self.reported - 1]
            result |= {"epoch": epoch + 1, self.job.metric: value}
        return result

    def _goes_on(self, code: int) -> bool:
        """Notes how a command ended, and starts the test if one is due."""
        seconds = self.record.seconds + time.monotonic() - self.began
        if code in STOPPED:
            self._note(state="interrupted" if self.what == "fit" else "fitted", seconds=seconds)
        elif code != 0:
            said = last_line(self.job.output, self.offset) or "without a word"
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            self._note(state="failed", seconds=seconds, error=said if code == 2 else f"{said} ({how})")
        elif self.what == "fit" and self.job.test:
            self._note(state="fitted", seconds=seconds)
            self._start("test")
            return True
        elif self.what == "test":
            results = Path(self.job.place, self.record.folder, "results.json")
            self._note(state="done", seconds=seconds, test=json.loads(results.read_text())["test"])
        elif not self.record.history:
            self._note(state="failed", seconds=seconds, error=f"nothing was logged as {self.job.metric}")
        else:
            self._note(state="done", seconds=seconds)
        return False

    def stop(self) -> None:
        """Ends the command, if it runs; the record says what came of it."""
        if self.process is not None:
            self.process.terminate()
