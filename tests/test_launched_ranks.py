"""Processes that one command starts, ranks and teachers: where one of them is killed, none is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import left_of_session
from test_faults import FIT, FOLDER, add
from test_rank_faults import EXPERIMENT
from toy_files import write_toy

from sdsnn_lightning.checkpoints import load_checkpoint

WORDS = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu")


@pytest.fixture
def place(workdir, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("toy.yaml").write_text(EXPERIMENT)
    Path("data.yaml").write_text("data: {class_path: toy.ToyData, init_args: {num_workers: 1, batch_size: 4}}")
    return workdir


def fit(*words):
    """A fit of two processes and of a loader process each.

    Returns:
        Exit code of the one that was started, and what all said, once all have ended: the pipe ends with the last.
    """
    command = [sys.executable, "-m", "sdsnn_lightning", *FIT, "--config", "data.yaml", *WORDS, *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said = process.communicate(timeout=240)[1]
    finally:
        left = left_of_session(process.pid)  # a pipe closes before its process has ended
        for number in left:
            os.kill(number, signal.SIGKILL)
    assert not left
    assert "Traceback" not in said, said
    return process.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other_and_leaves_none(place, rank):
    code, said = fit(*add("Die", rank=rank))
    # The launcher ends by itself, or is ended by Lightning's watch over its processes, whichever comes first.
    seen = ("error: another process of this run is gone", "terminated with code -9")
    assert any(words in said for words in seen), said
    assert code in ((-9,) if rank == 0 else (2, -9)), said
    assert load_checkpoint(FOLDER / "last.ckpt", "it")["epoch"] == 0


@pytest.mark.slow
def test_a_killed_student_leaves_no_teacher_in_training(workdir):
    write_toy()
    command = [sys.executable, "-m", "sdsnn_lightning", "fit", "--config", "toy.yaml", "--trainer.max_epochs", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    teacher = Path("runs/toy_teacher/version_0/checkpoints/last.ckpt")
    try:
        until = time.monotonic() + 120
        while not teacher.is_file() and time.monotonic() < until:
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        said = process.communicate(timeout=60)[1]
    finally:
        left = left_of_session(process.pid)
        for number in left:
            os.kill(number, signal.SIGKILL)
    assert not left
    assert "the run that this teacher is trained for is gone, so its training ends, too" in said
    assert f"to go on, repeat the command with --ckpt_path {teacher}" in said
    assert not Path("runs/toy_teacher/seed1.ckpt").exists()
