"""Callbacks every run has: spike activity, energy, and the record of its results."""

import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from sdsnn_lightning.classifier import network_inputs
from sdsnn_lightning.details import FILE, layer_entries
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.metrics.energy import EnergyScore
from sdsnn_lightning.metrics.energy_table import unseen_note
from sdsnn_lightning.metrics.spikes import FiringRates
from sdsnn_lightning.types import Batch
from sdsnn_lightning.whole import update_json, write_text

SECONDS = "sdsnn_seconds"
"""Key of a checkpoint: how long its run has trained."""


def scalars(trainer: Trainer, prefix: str) -> dict[str, float]:
    """The last logged scalars whose name starts with `prefix`, as plain floats, without it."""
    found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): value for name, value in found.items()}


class RunRecord(Callback):
    """Writes `results.json` into the run folder: data source, classes, time, best validation and test scores."""

    def __init__(self, folder: Path | None = None, command: str | None = None) -> None:
        """Creates the callback.

        Args:
            folder: Where to write; None takes the Trainer's log folder.
            command: The command line of a training, recorded with it.
        """
        self.folder, self.command = folder, command
        self.started = self.before = 0.0

    def _write(self, trainer: Trainer, **entries: Any) -> None:
        folder = self.folder or trainer.log_dir
        if trainer.is_global_zero and folder is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            source = {"data": type(data).__name__, "data_source": getattr(data, "origin", None)}
            if getattr(data, "protocol", None):
                source["protocol"] = data.protocol  # what picks the checkpoint
            update_json(Path(folder) / "results.json", **source, **entries)

    @property
    def seconds(self) -> float:
        """Time of training so far, of the earlier parts of a resumed run, too."""
        return round(self.before + time.monotonic() - self.started, 1)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Sets the clock to zero."""
        self.started, self.before = time.monotonic(), 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock; by now a checkpoint to go on from is read."""
        self.started = time.monotonic()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Notes the time in the checkpoint."""
        checkpoint[SECONDS] = self.seconds

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes the time of a run that is gone on with."""
        self.before = float(checkpoint.get(SECONDS, 0.0))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the training run."""
        checkpoint = trainer.checkpoint_callback
        score = getattr(checkpoint, "best_model_score", None)
        entry: dict[str, Any] = {
            "seconds": self.seconds,
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "best": None if score is None else float(score),
            "monitor": getattr(checkpoint, "monitor", None),
        }
        if self.command is not None:
            entry["command"] = self.command
        self._write(trainer, seed=os.environ.get("PL_GLOBAL_SEED"), fit=entry)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the test scores, with the checkpoint they belong to."""
        parameters = sum(p.numel() for p in pl_module.network.parameters())  # type: ignore[union-attr, misc]
        trained_on = getattr(pl_module, "trained_on", None)
        entry: dict[str, Any] = {"checkpoint": trainer.ckpt_path, "trained_on": trained_on, "parameters": parameters}
        entry |= scalars(trainer, "test/")
        self._write(trainer, test=entry)
        if trainer.is_global_zero and self.folder is not None:
            shown = {"WAR": ("WAR", 100, "%"), "UAR": ("UAR", 100, "%"), "firing rate": ("firing_rate/total", 1, ""),
                     "energy": ("energy/paper_nJ", 1e-3, " uJ")}  # fmt: skip
            parts = [f"{name} {entry[key] * by:.4g}{unit}" for name, (key, by, unit) in shown.items() if key in entry]
            print(f"{', '.join(parts)}; everything in {self.folder}/results.json")


class SpikeActivity(Callback):
    """Logs the firing rate of every layer of neurons in validation, and dead and saturated shares in a test."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: FiringRates | None = None

    def _start(self, pl_module: LightningModule) -> None:
        rates = FiringRates(pl_module.network).to(pl_module.device)  # type: ignore[arg-type]
        self.rates = rates if rates.layers else None

    def _count(self, pl_module: LightningModule) -> None:
        if self.rates:
            self.rates.attach(pl_module.network)  # type: ignore[arg-type]

    def _finish(self, pl_module: LightningModule, part: str, keys: tuple[str, ...]) -> None:
        if self.rates is None:
            return
        self.rates.detach()
        values = {f"{part}/{name}": v for name, v in self.rates.scalars().items() if name.startswith(keys)}
        pl_module.log_dict(values)
        self.rates = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts counting spikes."""
        self._start(pl_module)
        self._count(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs `val/firing_rate/<layer>`."""
        self._finish(pl_module, "val", ("firing_rate",))

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the counter."""
        self._start(pl_module)

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Counts the spikes of this batch."""
        self._count(pl_module)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stops counting until the next batch: in between, the network may run for other measurements."""
        if self.rates:
            self.rates.detach()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs `test/firing_rate/<layer>`, `test/dead/<layer>` and `test/saturated/<layer>`."""
        self._finish(pl_module, "test", ("firing_rate", "dead", "saturated"))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves no hook behind."""
        if self.rates is not None:
            self.rates.detach()


class EnergyMeter(Callback):
    """Measures operations and energy in every test: `test/energy/<rule>_nJ`, counts, and the layers.

    These go into `energy.txt` to be read, and into `details.json` for reports.

    Counted in the passes of the test itself, on all of its samples. Where a batch is padded, which is no work of the
    shorter samples, these run once more at their own lengths to be counted.
    """

    def __init__(self, folder: Path, batches: int | None = None) -> None:
        """Creates the callback.

        Args:
            folder: The run folder.
            batches: How many batches to count, spread evenly over the test; None counts all.

        Raises:
            ConfigError: If `batches` is less than one.
        """
        super().__init__()
        if batches is not None and batches < 1:
            raise ConfigError(
                f"EnergyMeter.batches is {batches}; set it to at least 1, or leave it out for all batches"
            )
        self.folder, self.batches = folder, batches
        self.score: EnergyScore | None = None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the counter."""
        self.score = EnergyScore(pl_module.network).to(pl_module.device)  # type: ignore[arg-type]

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Counts this batch, if it is its turn."""
        total = trainer.num_test_batches[dataloader_idx]  # infinite for a stream
        wanted = total if self.batches is None else min(self.batches, total)
        # A loader serves the clips of one person together and people differ: every n-th batch, not the first ones.
        if self.score is not None and (wanted == total or (batch_idx * wanted) % total < wanted):
            module: Any = pl_module
            inputs = network_inputs(module.network, getattr(batch, module.view))
            # Ahead of the test's own pass: callbacks that watch the network find that one's outputs afterwards.
            with torch.inference_mode(), trainer.precision_plugin.test_step_context():
                self.score.follow(*inputs)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Stops counting until the next batch."""
        if self.score is not None:
            self.score.detach()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums up over all processes, logs the totals and writes the layers."""
        if self.score is None:
            return
        report, self.score = self.score.compute(), None
        for name, value in report.totals.items():
            if name.startswith("energy_"):
                rule = name.removeprefix("energy_").removesuffix("_J")
                pl_module.log(f"test/energy/{rule}_nJ", value * 1e9, rank_zero_only=True)
            elif name != "parameters":
                pl_module.log(f"test/operations/{name}", float(value), rank_zero_only=True)
        if trainer.is_global_zero:
            if report.unseen:
                rank_zero_warn(unseen_note(report))
            write_text(self.folder / "energy.txt", report.table() + "\n")
            update_json(self.folder / FILE, layers=layer_entries(report))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves no hook behind."""
        if self.score is not None:
            self.score.detach()
