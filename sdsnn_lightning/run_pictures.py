"""The pictures of a tested run: confusion, recalls, layers, accuracy over time, spikes, and a clip with the answer."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from sdsnn_lightning.classifier import network_inputs
from sdsnn_lightning.details import FILE, read_details, score_entries, spike_entries
from sdsnn_lightning.metrics.spikes import record_spikes
from sdsnn_lightning.types import Batch
from sdsnn_lightning.whole import update_json


class RunPictures(Callback):
    """Saves pictures into `<run folder>/pictures` after every test, and logs them to W&B.

    What they show goes into `details.json`, too.
    """

    def __init__(self, folder: Path) -> None:
        """Creates the callback.

        Args:
            folder: The run folder.
        """
        super().__init__()
        self.folder = folder
        self.sample: dict[str, Any] = {}

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keeps the first sample of the test."""
        if batch_idx > 0 or not trainer.is_global_zero:
            return
        module: Any = pl_module
        view = getattr(batch, module.view)
        pictures = {name: view[name] for name in ("frames", "events") if name in view and view[name].ndim == 5}
        self.sample = {
            "inputs": tuple(x[:, :1] for x in network_inputs(module.network, view)),
            "images": {name: x[0, :, 0].float().cpu() for name, x in pictures.items()},  # [T, H, W]
            "target": int(batch.target[0]),
        }

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Runs the sample once more by itself, when spikes are no longer counted."""
        if not self.sample:
            return
        module: Any = pl_module
        network, inputs = module.network, self.sample["inputs"]
        logits = network(*inputs).logits
        prefixes = [logits[: t + 1] for t in range(len(logits))] if logits.ndim == 3 else [logits]
        shares = [network.readout(prefix).float().softmax(-1).cpu() for prefix in prefixes]
        self.sample["probabilities"] = torch.cat(shares)
        self.sample["spikes"] = {name: spikes[:, 0] for name, spikes in record_spikes(network, *inputs).items()}

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws and saves."""
        if not trainer.is_global_zero or not self.sample:
            return
        from sdsnn_lightning.charts import detail_charts
        from sdsnn_lightning.pictures import clip_strip, save_run_pictures

        metric: Any = pl_module.scores["test"]  # type: ignore[index]
        names, sample = metric.class_names, self.sample
        clip = None
        if sample["images"]:
            frames, events = (sample["images"].get(name) for name in ("frames", "events"))
            truth = names[sample["target"]]
            clip = clip_strip(frames, events, sample["spikes"], sample["probabilities"], names, truth)
        entries = {**score_entries(metric), "spikes": spike_entries(sample["spikes"])}
        update_json(self.folder / FILE, **entries)
        others = {"clip": clip, **detail_charts(read_details(self.folder))}
        paths = save_run_pictures(
            self.folder / "pictures", metric.confusion, names, metric.compute(), sample["spikes"], others
        )
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                for path in paths:
                    logger.log_image(f"test/{path.stem}", [str(path)])
