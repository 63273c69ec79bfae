"""W&B without ceremony: online where the user is logged in, offline otherwise, files in the run folder."""

import csv
import netrc
import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from sdsnn_lightning.runs import process_rank

Mode = Literal["auto", "online", "offline", "disabled"]


def logged_in() -> bool:
    """Whether W&B credentials exist for this user; looks at files and environment only, never at the network."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class MetricsFile(CSVLogger):
    """Lightning's `metrics.csv`; that of a resumed run goes on where its checkpoint was taken."""

    def __init__(self, runs: str, name: str, version: int, steps: int = 0) -> None:
        """Creates the logger.

        Args:
            runs: Folder that all run folders lie in.
            name: Name of the experiment.
            version: Number of the run folder.
            steps: Optimizer steps that the run resumes from. Rows of later steps will be logged again, so they go.
        """
        super().__init__(runs, name=name, version=version)
        self.steps = steps

    @property
    def experiment(self) -> Any:
        """The writer, which is given the rows of the steps before it deletes the file that they are in."""
        if self._experiment is None and self.steps and process_rank() == 0:
            path = Path(self.log_dir, "metrics.csv")
            rows: list[dict[str, Any]] = []
            if path.is_file():
                with path.open(newline="") as file:
                    table = list(csv.DictReader(file))
                rows = [{k: v for k, v in row.items() if v} for row in table if int(row["step"]) < self.steps]
            writer = super().experiment
            writer.metrics = rows
            writer.save()
            return writer
        return super().experiment


class Wandb:
    """The `wandb:` section of an experiment."""

    def __init__(
        self,
        project: str = "sdsnn",
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        mode: Mode = "auto",
    ) -> None:
        """Creates the settings.

        Args:
            project: W&B project.
            entity: W&B team or user; None takes the user's default.
            group: Groups runs, for instance those of one sweep.
            tags: Added to the run beside its data source.
            mode: `auto` goes online where the user is logged in. The environment variable WANDB_MODE wins over it.
        """
        self.project, self.entity, self.group, self.tags = project, entity, group, list(tags or [])
        chosen = os.environ.get("WANDB_MODE", mode)
        if chosen == "auto":
            chosen = "online" if logged_in() else "offline"
        self.mode = "offline" if chosen == "dryrun" else chosen

    def loggers(self, folder: str, name: str) -> list[WandbLogger]:
        """Makes the logger of one run; nothing is started before the first value is logged.

        Args:
            folder: The run folder; W&B writes its files below it.
            name: Display name of the run.

        Returns:
            The logger, or nothing where W&B is disabled.
        """
        if self.mode == "disabled":
            return []
        options: dict[str, Any] = {"entity": self.entity, "group": self.group, "tags": self.tags, "mode": self.mode}
        # Without a console writer wandb would print its banner over the progress bar.
        os.environ.setdefault("WANDB_SILENT", "true")
        if process_rank() == 0:
            Path(folder).mkdir(parents=True, exist_ok=True)
        return [RunLogger(name=name, project=self.project, save_dir=folder, **options)]


class RunLogger(WandbLogger):
    """Lightning's W&B logger that ends its run when the Trainer does, so that one process can do several runs."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._wandb_init.pop("anonymous", None)  # no longer known to wandb, which would say so on every run

    def finalize(self, status: str) -> None:
        """Ends the W&B run; W&B files are whole from here on."""
        super().finalize(status)
        if self._experiment is not None and hasattr(self._experiment, "finish"):
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


def note_config(trainer: Trainer, config: dict[str, Any]) -> None:
    """Puts the whole configuration, the data source and what picks the checkpoint into `wandb.config` and the tags.

    Args:
        trainer: Its loggers are searched for W&B.
        config: The resolved configuration of the run.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    facts = {"data_source": getattr(data, "data_source", None)}
    if getattr(data, "protocol", None):
        facts["protocol"] = data.protocol
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.config.update({**config, **facts}, allow_val_change=True)
            tags = (f"{name}: {fact}" for name, fact in facts.items())
            logger.experiment.tags = (*(logger.experiment.tags or ()), *tags)
