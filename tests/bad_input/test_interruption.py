"""Signals in the middle of an epoch: a state is kept from which the run goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_see import STUDENT

from sdsnn_lightning.cli import main

PRESS = """
import signal

from lightning.pytorch import Callback


class Press(Callback):
    def __init__(self, times: int):
        self.times = times

    def on_before_zero_grad(self, trainer, pl_module, optimizer):  # in the step, which has not changed a weight yet
        if trainer.current_epoch == 1:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
            self.times = 0
"""
TELL = """
import time
from pathlib import Path

from lightning.pytorch import Callback


class Tell(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 0 and not Path("second_epoch").exists():
            Path("second_epoch").touch()
            time.sleep(2.0)
"""


def stop_in_second_epoch(number, words):
    """Starts a command, sends it a signal in the middle of its second epoch; gives its exit code and stderr."""
    command = [sys.executable, "-m", "sdsnn_lightning", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        # As from a terminal: a shell starts background commands, and all their children, deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        while not Path("second_epoch").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_an_interruption_keeps_a_state_to_continue_from(place, number, code):
    Path("tell.py").write_text(TELL)
    words = ["fit", *STUDENT, "--trainer.max_epochs", "4", "--trainer.callbacks", "[{class_path: tell.Tell}]"]
    found, said = stop_in_second_epoch(number, words)
    assert found == code, said
    assert "Traceback" not in said
    assert "repeat the command with --ckpt_path" in said
    folder = Path("runs/seye_ce/version_0/checkpoints")
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    epoch = torch.load(folder / "best.ckpt", weights_only=True)["global_step"]
    state = torch.load(folder / "last.ckpt", weights_only=True)
    assert state["epoch"] == 1
    assert state["global_step"] == epoch + 1
    main([*words, "--ckpt_path", "last"])
    state = torch.load("runs/seye_ce/version_0/checkpoints/last.ckpt", weights_only=True)
    assert (state["epoch"], state["global_step"]) == (3, 4 * epoch)


def press(times):
    """Words of a run in which Ctrl-C is pressed in the first step of the second epoch."""
    Path("press.py").write_text(PRESS)
    callback = f"[{{class_path: press.Press, init_args: {{times: {times}}}}}]"
    return ["fit", *STUDENT, "--trainer.max_epochs", "3", "--trainer.callbacks", callback]


def weights(version):
    return torch.load(f"runs/seye_ce/version_{version}/checkpoints/last.ckpt", weights_only=True)


def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(place, capsys):
    with pytest.raises(SystemExit) as end:
        main(press(1))
    assert end.value.code == 130
    assert "stopping after this step" in capsys.readouterr().err
    stopped = weights(0)
    assert stopped["epoch"] == 1
    main([*press(0), "--ckpt_path", "last"])
    main(press(0))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed, whole = weights(0), weights(1)
    assert stopped["global_step"] == whole["global_step"] // 3 + 1
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, resumed["state_dict"][name]), name


def test_a_second_ctrl_c_ends_at_once_with_the_state_of_the_last_epoch(place, capsys):
    with pytest.raises(SystemExit) as end:
        main(press(2))
    assert end.value.code == 130
    assert weights(0)["epoch"] == 0
    main([*press(0), "--ckpt_path", "last"])
    assert weights(0)["epoch"] == 2
