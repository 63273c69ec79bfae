"""Rows 4 and 5: what distillation and Lightning add to the work itself.

Row 4 trains the single-eye student of `experiments/seye.yaml` (48x48, a quarter of the width) under its teacher with
both terms of MSKD, against training the student alone while a callback runs the teacher on the same batch. The figure
is the median step of a fit; fits take turns.

Row 5 sets a whole epoch of Lightning's `fit`, with the logger and the callbacks of the command line, against a bare
PyTorch loop over the same loader: the batch's views, forward, loss, backward, optimizer.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fitting import Clock, EyesInMemory, fit
from lightning.pytorch import Callback, LightningModule, Trainer
from measure import Options, Row, compare, in_turns, main
from torch import nn
from torch.nn import functional

from sdsnn_lightning import Classifier, Distiller
from sdsnn_lightning.callbacks import EnergyMeter, RunRecord, SpikeActivity
from sdsnn_lightning.classifier import run_network
from sdsnn_lightning.loggers import MetricsFile
from sdsnn_lightning.memory import keep_freed_memory
from sdsnn_lightning.networks import SingleEyeStudent, SingleEyeTeacher
from sdsnn_lightning.strategies import HitConsistency, LogitDistillation, TemporalConsistency

SGD = partial(torch.optim.SGD, lr=1e-4, momentum=0.9)
SIZE, WIDTH = 48, 0.25


class TeacherAlone(Callback):
    """Runs a teacher on every training batch and throws its answer away."""

    def __init__(self, teacher: nn.Module) -> None:
        self.teacher = teacher.eval()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        with torch.no_grad():
            run_network(self.teacher, batch.teacher)


def student(num_classes: int) -> nn.Module:
    return SingleEyeStudent(num_classes, size=SIZE, width=WIDTH)


def teacher(num_classes: int) -> nn.Module:
    return SingleEyeTeacher(num_classes, width=WIDTH)


def distillation(options: Options) -> Iterator[Row]:
    """Row 4, for the two terms of MSKD and for plain logit distillation."""
    batches = 2 if options.quick else 6
    data = EyesInMemory(batches, 4 if options.quick else 32, size=SIZE)
    alone, network = Classifier(student, 7, SGD), teacher(7)

    def separate() -> float:
        clock = Clock(options.clock)
        fit(alone, data, clock, TeacherAlone(network))
        return clock.step

    def together(distiller: Distiller, *strategies: Callback) -> float:
        clock = Clock(options.clock)
        fit(distiller, data, clock, *strategies)
        return clock.step

    ours = {
        "MSKD": partial(together, Distiller(student, 7, SGD, teacher, alpha=0.5), HitConsistency(),
                        TemporalConsistency()),
        "logit distillation": partial(together, Distiller(student, 7, SGD, teacher), LogitDistillation()),
    }  # fmt: skip
    times = in_turns({**ours, "student step, teacher forward": separate}, options)
    for name in ours:
        what = f"step of {name} against student step + teacher forward"
        yield compare(4, what, times, name, "student step", "<= 1.05")


def trainer_cost(options: Options) -> Iterator[Row]:
    """Row 5, for the student alone."""
    data = EyesInMemory(2 if options.quick else 20, 4 if options.quick else 32, size=SIZE)
    module, network = Classifier(student, 7, SGD), student(7)

    def lightning() -> float:
        clock = Clock(options.clock)
        with tempfile.TemporaryDirectory() as folder:
            extra = SpikeActivity(), EnergyMeter(Path(folder)), RunRecord()
            fit(module, data, clock, *extra, logger=MetricsFile(folder, "fit", 0), log_every_n_steps=10)
        return clock.whole

    def bare() -> float:
        data.trainer = None
        began = options.clock()
        optimizer = SGD(network.parameters())
        network.train()
        for samples in data.train_dataloader():
            batch = data.on_after_batch_transfer(samples, 0)
            optimizer.zero_grad()
            scores = network.readout(run_network(network, batch.student).logits)
            functional.cross_entropy(scores, batch.target).backward()
            optimizer.step()
        return 1000 * (options.clock() - began)

    times = in_turns({"Lightning fit": lightning, "bare loop": bare}, options)
    yield compare(5, "epoch of `fit` against a bare loop", times, "Lightning fit", "bare loop", "<= 1.05")


def rows(options: Options) -> Iterator[Row]:
    """Rows 4 and 5."""
    keep_freed_memory()
    torch.manual_seed(0)
    yield from distillation(options)
    yield from trainer_cost(options)


if __name__ == "__main__":
    main(rows, __doc__)
