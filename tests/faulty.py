"""Callbacks and data that break a run at a known place, for the tests of faults."""

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback
from toy import ToyData, ToySet


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60.0)  # the signal may take a moment


class AtBatch(Callback):
    """Does something after one batch of one epoch, on one rank."""

    def __init__(self, epoch: int = 1, batch: int = 1, rank: int = 0) -> None:
        self.place, self.rank = (epoch, batch), rank

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_rank == self.rank and (trainer.current_epoch, batch_idx) == self.place:
            self.act(trainer)


class Terminate(AtBatch):
    """SIGTERM."""

    def act(self, trainer):
        os.kill(os.getpid(), signal.SIGTERM)


class Interrupt(AtBatch):
    """Ctrl-C."""

    def act(self, trainer):
        os.kill(os.getpid(), signal.SIGINT)


class Die(AtBatch):
    """SIGKILL."""

    def act(self, trainer):
        kill_self()


class Vanish(AtBatch):
    """Deletes the folder `set`."""

    def act(self, trainer):
        shutil.rmtree("set")


class CutShort(AtBatch):
    """Cuts a file in the cache of the data short."""

    def act(self, trainer):
        for path in Path("set/.cache").glob("*/frames.npy"):
            os.truncate(path, 4096)


class KeepCopy(AtBatch):
    """Copies the run folder: what a run that is killed here leaves."""

    def act(self, trainer):
        shutil.copytree(trainer.log_dir, "copy")


class DieWriting(Callback):
    """SIGKILL while `last.ckpt` is written after an epoch: half of it aside, or all of it but not yet named."""

    def __init__(self, epoch: int, half: bool) -> None:
        self.epoch, self.half = epoch, half

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch != self.epoch:
            return
        fsync, replace = os.fsync, os.replace

        def dies(number):
            if os.readlink(f"/proc/self/fd/{number}").endswith(".last.ckpt.partial"):
                os.ftruncate(number, os.fstat(number).st_size // 2)
                kill_self()
            fsync(number)

        def replace_dies(source, target):
            if str(target).endswith("/last.ckpt"):
                kill_self()
            replace(source, target)

        if self.half:
            os.fsync = dies
        else:
            os.replace = replace_dies


class WritePids(Callback):
    """Notes the process of every rank in a file."""

    def on_train_start(self, trainer, pl_module):
        Path(f"pid{trainer.global_rank}").write_text(str(os.getpid()))


class Poison(Callback):
    """Makes the weights of one rank infinite."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == self.rank and (trainer.current_epoch, batch_idx) == (1, 1):
            with torch.no_grad():
                next(pl_module.network.parameters()).fill_(float("inf"))


class Mortal(ToySet):
    """Its loader process is killed at one sample."""

    def __getitem__(self, index):
        if index == 7 and torch.utils.data.get_worker_info() is not None:
            kill_self()
        return super().__getitem__(index)


class MortalData(ToyData):
    def setup(self, stage):
        super().setup(stage)
        self.train_set = Mortal(self.train_count, self.steps, self.num_classes, 0)


class Files(ToySet):
    """Reads every sample from a file of its own."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "x": torch.from_numpy(np.load(f"set/{index}.npy"))}


class FileData(ToyData):
    def setup(self, stage):
        super().setup(stage)
        self.train_set = Files(self.train_count, self.steps, self.num_classes, 0)
        if not Path("set").exists():
            Path("set").mkdir()
            for index, sample in enumerate(self.train_set.x):
                np.save(f"set/{index}.npy", sample.numpy())
