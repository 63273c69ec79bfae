"""Learning-rate schedules that look at a metric, stepped before the state of an epoch is kept."""

from typing import Any

from lightning.pytorch import LightningModule


class PlateauModule(LightningModule):
    """A module whose `ReduceLROnPlateau` a resumed run finds as an undisturbed one has it.

    Lightning steps such a schedule after the checkpoint of the epoch is written, so that every run that goes on from
    there would miss one step.
    """

    scheduler_interval: str

    def on_train_epoch_end(self) -> None:
        """Steps the schedule by the metric of this epoch's validation."""
        for config in self.trainer.lr_scheduler_configs:
            metric = self.trainer.callback_metrics.get(config.monitor or "")
            if config.reduce_on_plateau and config.interval == "epoch" and metric is not None:
                config.scheduler.step(metric)  # type: ignore[arg-type]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Steps a schedule, unless it was stepped at the end of the epoch.

        Args:
            scheduler: The schedule.
            metric: What it looks at; None for one that only counts.
        """
        if metric is None or self.scheduler_interval == "step":
            super().lr_scheduler_step(scheduler, metric)
