"""Whole sweeps through the command line: killed and resumed, stopped, and by ASHA. Real processes on a real Ray."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from toy_files import write_toy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
LR = "model.init_args.optimizer.init_args.lr"
SWEEP = {
    "name": "swept", "config": "toy.yaml", "space": {LR: {"grid": [0.1, 1e30, 0.3]}}, "metric": "val/UAR",
    "resources": {"cpus": os.cpu_count()}, "test": True,
}  # fmt: skip
STUCK = """
import time
from lightning.pytorch import Callback

class Stuck(Callback):
    def on_train_epoch_start(self, trainer, module):
        while trainer.current_epoch == 2 and trainer.optimizers[0].param_groups[0]["lr"] < 0.01:
            time.sleep(0.1)
"""
TIMEOUT = 1500  # of a step, on a machine that has much else to do


def start(place, file="sweep.yaml"):
    """Starts a sweep, without W&B."""
    environment = {
        **os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}{os.pathsep}{place}", "WANDB_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "sdsnn_lightning", "sweep", file]
    with (place / "said.txt").open("w") as said:
        return subprocess.Popen(
            command, cwd=place, env=environment, stdout=said, stderr=said, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
        )  # fmt: skip


def record(place, index, name="swept"):
    path = place / f"runs/{name}/trial_{index:03d}/trial.json"
    return json.loads(path.read_text()) if path.is_file() else {"state": "waiting"}


def until(process, condition, what):
    end = time.monotonic() + TIMEOUT
    try:
        while not condition():
            assert process.poll() is None, f"ended before {what}"
            assert time.monotonic() < end, f"never: {what}"
            time.sleep(0.05)
    except BaseException:
        process.kill()
        raise


def still_there(place):
    """Processes whose current folder is the sweep's: Ray's, the guards, the trials and their children."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve(strict=True) == place.resolve():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
        except OSError:
            continue
    return found


def nothing_left(place):
    end = time.monotonic() + TIMEOUT
    while still_there(place):
        assert time.monotonic() < end, still_there(place)
        time.sleep(0.1)


def prepare(place, **changes):
    before = Path.cwd()
    os.chdir(place)
    write_toy()
    Path("sweep.yaml").write_text(yaml.safe_dump({**SWEEP, **changes}))
    os.chdir(before)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of three trials, one after the other: killed with -9 within the second, then started again."""
    place = tmp_path_factory.mktemp("swept")
    prepare(place)
    process = start(place)
    until(process, lambda: record(place, 0)["state"] == "done", "the first trial is done")
    until(process, lambda: record(place, 1)["state"] == "running", "the second trial runs")
    process.kill()
    process.wait()
    nothing_left(place)
    states = [record(place, index)["state"] for index in range(3)]
    first = (place / "runs/swept/trial_000/output.txt").stat().st_mtime_ns
    again = start(place)
    assert again.wait(TIMEOUT) == 0, (place / "said.txt").read_text()
    nothing_left(place)
    return {"place": place, "states": states, "first": first, "said": (place / "said.txt").read_text()}


def test_a_killed_sweep_goes_on_and_repeats_no_finished_trial(swept):
    place = swept["place"]
    assert swept["states"] == ["done", "running", "waiting"]
    assert [record(place, index)["state"] for index in range(3)] == ["done", "failed", "done"]
    assert (place / "runs/swept/trial_000/output.txt").stat().st_mtime_ns == swept["first"]
    assert "2 of 3 trials to run" in swept["said"]
    assert "checking one batch" not in swept["said"]
    assert [path.name for path in sorted((place / "runs/swept/trial_000").glob("version_*"))] == ["version_0"]


def test_a_crashing_trial_is_marked_with_its_last_error(swept):
    error = record(swept["place"], 1)["error"]
    assert "NaN" in error or "nan" in error or "finite" in error
    assert f"trial 1 failed: {error}" in swept["said"]


def test_the_teacher_was_trained_once_for_all_trials(swept):
    folder = swept["place"] / "runs/toy_teacher"
    assert sorted(path.name for path in folder.glob("version_*")) == ["version_0"]
    assert (folder / "seed1.ckpt").is_file()


def test_the_record_is_what_the_run_wrote(swept):
    place = swept["place"]
    for index in (0, 2):
        found = record(place, index)
        folder = place / found["folder"]
        rows = [row for row in csv.DictReader((folder / "metrics.csv").open()) if row["val/UAR"]]
        assert found["history"] == [[int(row["epoch"]), float(row["val/UAR"])] for row in rows]
        assert len(rows) == 2
        assert found["test"] == json.loads((folder / "results.json").read_text())["test"]
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["wandb"]["group"] == "swept"
        assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == SWEEP["space"][LR]["grid"][index]


def test_table_and_pictures_are_there_and_ray_is_gone(swept):
    folder = swept["place"] / "runs/swept"
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    assert [row["state"] for row in rows] == ["done", "done", "failed"]
    values = [float(row["val/UAR"]) for row in rows[:2]]
    assert values == sorted(values, reverse=True)
    assert all(float(row["energy_uJ"]) > 0 for row in rows[:2])
    assert (folder / "objective.png").stat().st_size > 1000
    assert (folder / "pareto.png").stat().st_size > 1000
    assert not (folder / ".ray").exists()
    assert swept["said"].count("Traceback") == 0


def test_best_yaml_gives_the_winners_numbers_again(swept):
    place = swept["place"]
    best = next(csv.DictReader((place / "runs/swept/trials.csv").open()))
    command = [sys.executable, "-m", "sdsnn_lightning", "fit", "--config", "runs/swept/best.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    again = (place / "runs/swept_best/version_0/metrics.csv").read_text()
    assert "OMP_NUM_THREADS=1;" in (place / "runs/swept/best.yaml").read_text()
    assert again == (place / best["folder"] / "metrics.csv").read_text()


def test_another_sweep_does_not_take_the_folder(swept):
    place = swept["place"]
    (place / "other.yaml").write_text(yaml.safe_dump({**SWEEP, "metric": "val/WAR"}))
    assert start(place, "other.yaml").wait(TIMEOUT) == 2
    assert "error: other.yaml: runs/swept was begun with another metric" in (place / "said.txt").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_leaves_no_process(tmp_path, number, code):
    Path(tmp_path, "stuck.py").write_text(STUCK)
    extra = {"config": ["toy.yaml", "stuck.yaml"], "space": {LR: {"grid": [0.001]}}}
    Path(tmp_path, "stuck.yaml").write_text("trainer: {max_epochs: 4, callbacks+: [{class_path: stuck.Stuck}]}")
    prepare(tmp_path, **extra)
    process = start(tmp_path)
    metrics = tmp_path / "runs/swept/trial_000/version_0/metrics.csv"
    until(process, lambda: metrics.is_file() and metrics.read_text().count("\n") > 2, "the trial has two epochs")
    os.kill(process.pid, number)
    assert process.wait(TIMEOUT) == code
    assert [line for line in still_there(tmp_path) if "swept" in line] == []
    nothing_left(tmp_path)
    assert record(tmp_path, 0)["state"] == "running"  # to go on with the same command
    assert list(Path(tempfile.gettempdir()).glob(f"sdsnn-ray-{process.pid}-*")) == []


def test_asha_ends_the_processes_of_trials_that_are_behind(tmp_path):
    """Trials with a small learning rate never end by themselves: the sweep ends because they are stopped."""
    Path(tmp_path, "stuck.py").write_text(STUCK)
    Path(tmp_path, "stuck.yaml").write_text("trainer: {max_epochs: 4, callbacks+: [{class_path: stuck.Stuck}]}")
    prepare(tmp_path, config=["toy.yaml", "stuck.yaml"], space={LR: {"grid": [0.3, 1e-6, 1e-7]}}, metric="val/task",
            mode="min", scheduler="asha", reduction_factor=2, test=False)  # fmt: skip
    assert start(tmp_path).wait(TIMEOUT) == 0, (tmp_path / "said.txt").read_text()
    assert [record(tmp_path, index)["state"] for index in range(3)] == ["done", "stopped", "stopped"]
    assert [len(record(tmp_path, index)["history"]) for index in range(3)] == [4, 1, 1]
    nothing_left(tmp_path)
    assert "best: trial 0, val/task" in (tmp_path / "said.txt").read_text()
