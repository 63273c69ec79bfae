"""Ray Tune: gives trials their turn and their GPUs, stops those that ASHA gives up. Imported only when a sweep runs."""

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Ray reads these when it is imported: no statistics sent, trials as urgent as a person's runs, few files of its
# own, no Ctrl-C handler beside ours.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
os.environ.update({name: value for name, value in SETTINGS.items() if name not in os.environ})

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler  # noqa: E402

from sdsnn_lightning.errors import ConfigError  # noqa: E402
from sdsnn_lightning.sweeps.process import GRACE, GuardedProcess  # noqa: E402
from sdsnn_lightning.sweeps.space import Sweep  # noqa: E402
from sdsnn_lightning.sweeps.trial import Job, TrialRun  # noqa: E402

PREFIX = "sdsnn-ray-"
"""Of Ray's folder among the temporary files; the number of the process that made it follows."""
ATTEMPTS = 5
OBJECT_STORE = 100 * 2**20  # bytes; nothing but settings and numbers passes through it
Watch = Callable[[int, dict[str, Any]], None]


class Trial(tune.Trainable):
    """A `TrialRun` as Ray sees it: one step an epoch."""

    def setup(self, config: dict[str, Any], jobs: Sequence[Job] = ()) -> None:
        """Starts the trial whose index Ray gave."""
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        self.run = TrialRun(jobs[config["trial"]], gpus)

    def step(self) -> dict[str, Any]:
        """Waits for the next epoch."""
        return self.run.next()

    def cleanup(self) -> None:
        """Ends the trial's processes, where ASHA has stopped it."""
        if hasattr(self, "run"):
            self.run.stop()


class Follower(tune.Callback):
    """Tells the table what happens; runs in the process of the sweep."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its callbacks to a file, and a live table cannot be written."""
        return {}

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial begins."""
        self.watch(trial.config["trial"], {"state": "running"})

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """A trial has an epoch behind it."""
        if not result["done"]:
            self.watch(trial.config["trial"], {"state": "running", "epoch": result.get("epoch", 0)})

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial has ended by itself, or ASHA has stopped it."""
        result = trial.last_result or {}
        self.watch(trial.config["trial"], {"ended": True, "epoch": result.get("epoch", 0)})

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """The worker of a trial died, not the trial's command."""
        self.watch(trial.config["trial"], {"ended": True, "epoch": 0, "lost": True})


def _remove_leftovers() -> None:
    """Removes the folders of sweeps that were killed and could not."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        number = folder.name.removeprefix(PREFIX).partition("-")[0]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, PermissionError):
            continue


def _knock(address: str) -> None:
    """Refuses an address where nobody listens; Ray itself would try for many minutes."""
    host, colon, port = address.rpartition(":")
    if address == "auto" or "://" in address:
        return
    try:
        if not colon or not port.isdigit():
            raise OSError("no port is named")
        socket.create_connection((host, int(port)), timeout=20).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--address {address}: no Ray cluster answers ({error}); give `auto` or host:port of one that runs"
        ) from None


def _children() -> set[int]:
    """Numbers of the processes that this one has started, where the system tells."""
    return {int(n) for path in Path("/proc/self/task").glob("*/children") for n in path.read_text().split()}


def _start(options: dict[str, Any]) -> None:
    """Starts or joins Ray. It gives a machine half a minute to start, which a busy one may miss: then once more."""
    reason = ""
    before = _children()
    for _ in range(ATTEMPTS):
        try:
            ray.init(**options)
            return
        except Exception as error:  # Ray raises a plain Exception for a slow start
            ray.shutdown()
            for number in _children() - before:  # it leaves those behind that had started
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            if options["address"] != "local":
                where = f"--address {options['address']}: no Ray cluster answers"
                raise ConfigError(f"{where} ({reason}); start one, or leave --address out") from None
    raise ConfigError(f"Ray did not start in {ATTEMPTS} attempts ({reason}); try again when the machine is less busy")


@contextlib.contextmanager
def cluster(sweep: Sweep, address: str | None) -> Iterator[None]:
    """Starts Ray on this machine, or joins a cluster, for as long as the block lasts.

    Args:
        sweep: Its trials must fit on one of the machines.
        address: Of a running cluster, `auto` or host:port; None starts one of this machine alone.

    Raises:
        ConfigError: If the cluster cannot be reached, or has no machine for one trial.
    """
    place = None
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what happens to trials is told by the table
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        # Not below the run folder: the path of a socket must be short.
        _remove_leftovers()
        place = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")
        options |= {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE,
            "_temp_dir": place,
        }
    else:
        _knock(address)
        options["address"] = address
    try:
        _start(options)
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= sweep.cpus and node.get("GPU", 0) >= sweep.gpus for node in machines):
            largest = max(machines, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)))
            raise ConfigError(
                f"{sweep.file}: resources: a trial asks for {sweep.cpus:g} CPUs and {sweep.gpus:g} GPUs, but the "
                f"largest machine has {largest.get('CPU', 0):g} and {largest.get('GPU', 0):g}; ask for less"
            )
        yield
    finally:
        ray.shutdown()
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)


def train_teacher(sweep: Sweep, command: list[str], output: Path, environment: dict[str, str],
                  dropped: tuple[str, ...]) -> int:  # fmt: skip
    """Trains a teacher where a trial would run, with a trial's resources.

    Args:
        sweep: For the resources.
        command: Program and arguments.
        output: What it prints goes there.
        environment: Variables beside the worker's.
        dropped: Beginnings of the names of variables that it does not get.

    Returns:
        The exit code.
    """
    place = str(Path.cwd())

    @ray.remote(num_cpus=sweep.cpus, num_gpus=sweep.gpus, max_retries=0)
    def work() -> int:
        variables = {k: v for k, v in os.environ.items() if not k.startswith(dropped)} | environment
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        return GuardedProcess(command, output, output.with_suffix(".lock"), variables, place).wait()

    return ray.get(work.remote())


def run_trials(sweep: Sweep, jobs: Sequence[Job], wanted: Sequence[int], folder: Path, watch: Watch) -> None:
    """Runs trials until all have ended.

    Args:
        sweep: As its YAML states it.
        jobs: All trials.
        wanted: Indices of those to run. Finished ones among them are played back, for ASHA to compare with.
        folder: Of the sweep; Ray's own notes go there while it runs.
        watch: Called with a trial's index and what has happened to it.
    """
    notes = folder.absolute() / ".ray"
    trainable = tune.with_resources(
        tune.with_parameters(Trial, jobs=list(jobs)), {"cpu": sweep.cpus, "gpu": sweep.gpus}
    )
    longest = max(job.epochs for job in jobs)
    scheduler: TrialScheduler = FIFOScheduler()
    if sweep.scheduler == "asha":
        scheduler = AsyncHyperBandScheduler(
            time_attr="epoch",
            metric=sweep.metric,
            mode=sweep.mode,
            max_t=longest + 1,  # it must not end a trial that is at its last epoch
            grace_period=min(sweep.grace_epochs, longest),
            reduction_factor=sweep.reduction_factor,
        )
    tuner = tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search(list(wanted))},
        tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=False),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(notes),
            verbose=0,
            callbacks=[Follower(watch)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial keeps its own
            failure_config=tune.FailureConfig(max_failures=2),  # of workers: a command that fails is not run again
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(notes, ignore_errors=True)


def wait_until_ended(jobs: Sequence[Job]) -> None:
    """Waits until the last process of every trial has ended, which their guards' locks tell."""
    until = time.monotonic() + 2 * GRACE
    for path in [job.folder / ".lock" for job in jobs]:
        while path.is_file() and _held(path) and time.monotonic() < until:
            time.sleep(0.1)


def _held(path: Path) -> bool:
    with path.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
