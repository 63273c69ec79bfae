"""What the benchmarks of training share: eye clips in memory, and the time of a fit by Lightning's Trainer."""

import logging
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Dataset

from sdsnn_lightning.data.base import DataModule
from sdsnn_lightning.data.single_eye import eye_view
from sdsnn_lightning.quiet import keep_quiet
from sdsnn_lightning.types import View


class _Clips(Dataset):
    def __init__(self, count: int, steps: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (count, steps, 1, size, size)
        self.images = {
            name: torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for name in ("frames", "events")
        }

    def __len__(self) -> int:
        return len(self.images["frames"])

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [{name: x[i] for name, x in self.images.items()} | {"target": i % 7} for i in indices]


class EyesInMemory(DataModule):
    """Random clips in the form of the single-eye set: loading them costs next to nothing."""

    def __init__(self, batches: int, batch_size: int, steps: int = 4, size: int = 48) -> None:
        super().__init__(batch_size)
        self.class_names = [str(k) for k in range(7)]
        self.input_shapes = {name: (steps, 3, size, size) for name in ("frames", "events")}
        self.data_source = "simulated"
        self.train_set = _Clips(batches * batch_size, steps, size)

    def setup(self, stage: str) -> None:
        """Nothing: all is there."""

    def views(self, sample: dict[str, Tensor], training: bool) -> tuple[View, View]:
        view = eye_view(sample, 3, "grey")
        return view, view


class Clock(Callback):
    """Milliseconds of every training step from batch to batch end, and of the whole training.

    Stands first among the callbacks, so that a step holds the others' work at its start.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.steps: list[float] = []
        self.began = self.whole = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = self.clock()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.steps.append(-self.clock())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps[-1] = 1000 * (self.steps[-1] + self.clock())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.whole = 1000 * (self.clock() - self.began)

    @property
    def step(self) -> float:
        """The median step."""
        return statistics.median(self.steps)


def fit(module: LightningModule, data: DataModule, clock: Clock, *callbacks: Callback, **options: Any) -> None:
    """Trains one epoch as the command line does, with nothing on the terminal and nothing on disk."""
    keep_quiet()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning)
    plain: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "max_epochs": 1, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0,
    }  # fmt: skip
    Trainer(callbacks=[clock, *callbacks], **(plain | options)).fit(module, datamodule=data)
