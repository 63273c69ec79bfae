"""A callback that holds a run of a Slurm job at one place, for the test to interrupt it exactly there."""

import os
import time
from pathlib import Path

from lightning.pytorch import Callback

from sdsnn_lightning.slurm import Requeue


class Pause(Callback):
    """Holds the first process in epoch 1, after its second batch, the first time that the job runs."""

    def on_train_start(self, trainer, module):
        if trainer.global_rank == 0:
            Path("began").write_text(str(trainer.global_step))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        wanted = os.environ.get("SDSNN_PAUSE") == "yes" and os.environ.get("SLURM_RESTART_COUNT", "0") == "0"
        if not wanted or trainer.global_rank or (trainer.current_epoch, batch_idx) != (1, 1):
            return
        (requeue,) = (callback for callback in trainer.callbacks if isinstance(callback, Requeue))
        Path("paused.partial").write_text(str(os.getpid()))
        os.replace("paused.partial", "paused")
        end = time.monotonic() + 240
        while not requeue.notices and time.monotonic() < end:  # or until killed
            time.sleep(0.05)
        assert requeue.notices, "no signal has come"
