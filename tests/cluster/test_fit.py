"""`fit` under a real Slurm: two tasks train one network, and a job that is queued anew ends like an undisturbed one."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdsnn_lightning.checkpoints import load_checkpoint

SCRIPT = Path(__file__).parents[2] / "experiments" / "cluster" / "fit.sbatch"
EXPERIMENT = """
name: toy
data: {class_path: toy.TimedToy, init_args: {batch_size: 4}}
model:
  class_path: sdsnn_lightning.Classifier
  init_args:
    network: {class_path: toy.ToyNet, init_args: {dropout: 0.3}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.02}}
    scheduler: {class_path: torch.optim.lr_scheduler.ExponentialLR, init_args: {gamma: 0.7}}
trainer:
  max_epochs: 3
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  log_every_n_steps: 1
  callbacks: [{class_path: pause.Pause}]
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def submit(slurm, folder, *options, experiment=EXPERIMENT, tasks=2):
    """A job on the one node, through the script of the package."""
    folder.mkdir(exist_ok=True)
    (folder / "toy.yaml").write_text(experiment)
    options = (f"--ntasks-per-node={tasks}", f"--chdir={folder}", f"--output={folder}/job.out", *options)
    return slurm.submit(*options, str(SCRIPT), "toy.yaml", "--seed_everything", "3")


@pytest.fixture(scope="module")
def undisturbed(slurm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    slurm.environment["SDSNN_PAUSE"] = "no"
    job = submit(slurm, folder)
    slurm.environment["SDSNN_PAUSE"] = "yes"
    slurm.finish(job)
    return folder / "runs/toy/version_0"


def test_two_tasks_train_one_network(undisturbed):
    fit = json.loads((undisturbed / "results.json").read_text())["fit"]
    assert fit["steps"] == 3 * 48 // (2 * 4)  # a global batch is twice that of a process
    assert [path.name for path in undisturbed.parent.iterdir()] == ["version_0"]


def disturb(slurm, job, how, process=0):
    """Ends the first start of a job, in one of the ways in which jobs end before their time, and queues it anew."""
    if how == "notice":  # as --signal gives it; the run then queues its job anew itself
        slurm.call("scancel", "--signal=USR1", job)
    elif how == "pre-emption":  # SIGTERM, and the job is queued by Slurm
        slurm.call("scontrol", "requeue", job)
    else:
        if how == "Ctrl-C":  # in the terminal of an srun, which hands it on
            slurm.call("scancel", "--signal=INT", job)
        else:  # without any warning, as when a node fails
            os.kill(process, signal.SIGKILL)  # scancel would give a warning first
        slurm.wait_until(job, "its failure", lambda: slurm.facts(job)["JobState"] == "FAILED")
        slurm.call("scontrol", "requeue", job)
    slurm.wait_until(job, "its second start", lambda: slurm.facts(job)["Restarts"] == "1")


@pytest.mark.parametrize("how", ["notice", "pre-emption", "Ctrl-C", "kill"])
def test_a_job_that_is_queued_anew_ends_like_an_undisturbed_one(slurm, undisturbed, tmp_path, how):
    job = submit(slurm, tmp_path, f"--export=ALL,WANDB_MODE={'offline' if how == 'notice' else 'disabled'}")
    slurm.wait_until(job, "the place to disturb it", (tmp_path / "paused").exists)
    disturb(slurm, job, how, int((tmp_path / "paused").read_text()))
    said = slurm.finish(job)
    assert "start 2:" in said
    assert ("is queued anew" in said) == (how == "notice")
    folder = tmp_path / "runs/toy/version_0"
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]
    # Whoever was given time has kept the state within the epoch; after a kill there is that of the epoch before.
    assert (tmp_path / "began").read_text() == ("6" if how == "kill" else "8")
    states = [load_checkpoint(run / "checkpoints/last.ckpt", "it") for run in (folder, undisturbed)]
    assert states[0]["global_step"] == states[1]["global_step"]
    for key in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(states[0][key], states[1][key], rtol=0, atol=0)
    assert (folder / "metrics.csv").read_text() == (undisturbed / "metrics.csv").read_text()
    if how == "notice":
        ids = {path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")}
        assert len(list((folder / "wandb").glob("offline-run-*"))) == 2
        assert len(ids) == 1


TEACHER = EXPERIMENT.replace("name: toy", "name: toy_teacher").replace("max_epochs: 3", "max_epochs: 2")
STUDENT = """
name: toy
data: {class_path: toy.TimedToy}
model:
  class_path: sdsnn_lightning.Distiller
  init_args:
    student: {class_path: toy.ToyNet, init_args: {hidden: 5}}
    teacher: {class_path: toy.ToyNet, init_args: {dropout: 0.3}}
    teacher_checkpoint: ${runs}/teacher.ckpt
    teacher_experiment: teacher.yaml
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
"""


def test_a_teacher_trained_first_goes_on_in_its_folder_too(slurm, tmp_path):
    (tmp_path / "teacher.yaml").write_text(TEACHER)
    slurm.environment["SDSNN_PAUSE"] = "yes"
    job = submit(slurm, tmp_path, experiment=STUDENT, tasks=1)
    slurm.wait_until(job, "the place to disturb it", (tmp_path / "paused").exists)
    disturb(slurm, job, "notice")
    slurm.finish(job)
    assert (tmp_path / "began").read_text() == "8"
    assert sorted(path.name for path in (tmp_path / "runs").glob("*/version_*")) == ["version_0", "version_0"]
    rows = csv.DictReader((tmp_path / "runs/toy_teacher/version_0/metrics.csv").read_text().splitlines())
    assert [int(row["step"]) for row in rows if row["train/task"]] == list(range(12))
    assert json.loads((tmp_path / "runs/toy/version_0/results.json").read_text())["fit"]["steps"] == 6


def fit_alone(slurm, folder, *start):
    """A run with two processes, started otherwise than by a batch script."""
    (folder / "toy.yaml").write_text(EXPERIMENT)
    words = [sys.executable, "-m", "sdsnn_lightning", "fit", "--config", "toy.yaml", "--trainer.max_epochs", "1"]
    command = shlex.join([*start, "--job-name=mine", *words, "--trainer.devices", "2"])
    return subprocess.run(  # in a terminal, without which salloc and --pty refuse to work
        ["script", "--quiet", "--return", "--command", command, "/dev/null"],
        cwd=folder, env=slurm.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


@pytest.mark.parametrize("start", [["salloc", "--ntasks-per-node=2"], ["srun", "--ntasks=1", "--pty"]])
def test_a_shell_of_slurm_runs_processes_of_its_own(slurm, tmp_path, start):
    done = fit_alone(slurm, tmp_path, *start)
    assert done.returncode == 0, done.stdout
    results = json.loads((tmp_path / "runs/toy/version_0/results.json").read_text())
    assert results["fit"]["steps"] == 48 // (2 * 4)


def test_fewer_tasks_than_processes_are_refused(slurm, tmp_path):
    done = fit_alone(slurm, tmp_path, "srun", "--ntasks=1")
    assert done.returncode == 2, done.stdout
    assert "devices x trainer.num_nodes is 2, but Slurm has started 1 tasks" in done.stdout
