"""Two processes that train together: where one is killed or told to stop, neither is left waiting for the other."""

import contextlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch
from test_faults import FIT, FOLDER, add

from sdsnn_lightning import faults
from sdsnn_lightning.checkpoints import load_checkpoint
from sdsnn_lightning.cli import main

EXPERIMENT = """
name: toy
data: {class_path: toy.TimedToy, init_args: {noise: 0.0}}  # each process draws its own noise
model:
  class_path: sdsnn_lightning.Classifier
  init_args:
    network: {class_path: toy.ToyNet, init_args: {norm: false}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.02}}
trainer:
  max_epochs: 3
  accelerator: cpu
  precision: 64-true
  enable_progress_bar: false
  enable_model_summary: false
"""


@pytest.fixture
def place(workdir):
    Path("toy.yaml").write_text(EXPERIMENT)
    return workdir


def be_rank(rank, port, stderr, words):
    """Is one rank of two, as under a launcher that starts them from outside; never returns."""
    sys.stderr = os.fdopen(stderr, "w", buffering=1)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    code: object = 0
    try:
        main([*FIT, "--trainer.devices", "2", "--data.init_args.batch_size", "4", *words])
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code if isinstance(code, int) else 1)


def run(*words):
    """A run of two processes, the second a child of the first, forked to spare them the imports.

    Returns:
        Exit code of the first, and what both said by themselves, once both have ended: the pipe ends with them.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reading, writing = os.pipe()
    first = os.fork()
    if first == 0:
        os.setpgid(0, 0)
        be_rank(int(os.fork() == 0), port, writing, words)
    os.close(writing)
    said = b""
    try:
        while True:
            assert select.select([reading], [], [], 200)[0], f"hangs, having said {said.decode()}"
            if not (block := os.read(reading, 4096)):
                break
            said += block
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(first, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    assert b"Traceback" not in said, said.decode()
    return code, said.decode()


@pytest.mark.parametrize(("how", "rank"), [("Terminate", 0), ("Terminate", 1), ("Interrupt", 0)])
def test_a_process_told_to_stop_stops_both_at_one_step(place, how, rank):
    code, said = run(*add(how, epoch=1, batch=1, rank=rank))
    assert code == {"Terminate": 143, "Interrupt": 130}[how], said
    assert load_checkpoint(FOLDER / "last.ckpt", "it")["global_step"] == 6 + 2
    main([*FIT, "--trainer.devices", "1", "--ckpt_path", "last"])  # of 8 samples a batch, as both have together
    main([*FIT, "--trainer.devices", "1"])
    found, wanted = (
        load_checkpoint(Path(f"runs/toy/version_{n}/checkpoints/last.ckpt"), "it")["state_dict"] for n in (0, 1)
    )
    assert all(torch.allclose(found[key], wanted[key], rtol=0, atol=1e-10) for key in wanted)


@pytest.mark.parametrize(("rank", "code"), [(0, -9), (1, 2)])
def test_a_killed_process_ends_the_other(place, rank, code):
    found, said = run(*add("Die", rank=rank))
    assert found == code, said
    assert "error: another process of this run is gone" in said
    assert "then go on with --ckpt_path last" in said
    assert load_checkpoint(FOLDER / "last.ckpt", "it")["epoch"] == 0


def test_a_loss_that_is_not_finite_in_one_process_ends_both(place):
    code, said = run(*add("Poison", rank=1))
    assert code == 2, said
    assert "error: loss term 'task' is nan at step 7; lower the learning rate" in said
    assert load_checkpoint(FOLDER / "best.ckpt", "it")["epoch"] == 0


def test_a_process_whose_first_one_is_gone_ends_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "_GRACE", 0.1)
    monkeypatch.setenv("SDSNN_FIRST_PROCESS", "0")  # put back afterwards
    reading, writing = os.pipe()
    first = os.fork()
    if first == 0:
        faults.follow_first_process(rank=0)
        if os.fork() == 0:
            sys.stderr = os.fdopen(writing, "w", buffering=1)
            faults.follow_first_process(rank=1)
            time.sleep(600.0)
        os._exit(0)
    os.close(writing)
    os.waitpid(first, 0)
    with os.fdopen(reading) as pipe:
        assert pipe.read().startswith("error: the first process of this run is gone")
