"""What W&B is told of a run beside its values: whole configuration, provenance, best validation, best weights."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sdsnn_lightning.checkpoints import load_checkpoint, load_network_state
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.loggers import RunLogger
from sdsnn_lightning.strategies.base import Strategy

GIT_SECONDS = 5.0


def wandb_loggers(trainer: Trainer) -> Iterator[RunLogger]:
    """The W&B loggers of a Trainer; none on other processes than the first."""
    if trainer.is_global_zero:
        yield from (logger for logger in trainer.loggers if isinstance(logger, RunLogger))


def git_state(folder: Path) -> dict[str, Any]:
    """Asks git for the state of a folder.

    Args:
        folder: Any folder.

    Returns:
        `git_commit`, and `git_changed`: whether tracked files differ from it. Empty where git knows nothing.
    """

    def ask(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # looking must not hold up another git
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=GIT_SECONDS, env=environment
        ).stdout.strip()

    try:
        commit = ask("rev-parse", "HEAD")
        return {"git_commit": commit, "git_changed": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def provenance(trainer: Trainer) -> dict[str, Any]:
    """What a run was made of, as short facts to filter by.

    Args:
        trainer: With data module and network attached.

    Returns:
        `data`, `data_source`, `student` or `network`, `teacher` and `strategies` where there are any, `protocol` where
        the data names one, the package's version, and the git commit: that of the current folder, where experiments and
        one's own modules are, else that of the package.
    """
    data, module = trainer.datamodule, trainer.lightning_module  # type: ignore[attr-defined]
    facts: dict[str, Any] = {"data": type(data).__name__, "data_source": getattr(data, "origin", None)}
    if getattr(data, "protocol", None):
        facts["protocol"] = data.protocol
    teacher: Any = getattr(module, "teacher", None)
    facts["network" if teacher is None else "student"] = type(getattr(module, "network", None)).__name__
    if teacher is not None:
        facts["teacher"] = type(teacher).__name__
    if strategies := [c.name for c in trainer.callbacks if isinstance(c, Strategy)]:  # type: ignore[attr-defined]
        facts["strategies"] = strategies
    with contextlib.suppress(PackageNotFoundError):  # run from a folder of sources
        facts["sdsnn_version"] = version("sdsnn-lightning")
    return facts | (git_state(Path.cwd()) or git_state(Path(__file__).parent))


def note_config(trainer: Trainer, config: dict[str, Any]) -> None:
    """Puts the whole configuration and the provenance into `wandb.config`, and the data source into the tags.

    Args:
        trainer: Its loggers are searched for W&B.
        config: The resolved configuration of the run.
    """
    for logger in wandb_loggers(trainer):
        facts = provenance(trainer)
        # Under one key: `data` is a section of the configuration, too.
        logger.experiment.config.update(
            {**config, "provenance": facts, "data_source": facts["data_source"]}, allow_val_change=True
        )
        tags = [f"{name}: {facts[name]}" for name in ("data_source", "protocol") if name in facts]
        logger.experiment.tags = tuple(dict.fromkeys((*(logger.experiment.tags or ()), *tags)))


class WandbRecord(Callback):
    """Keeps the best validation value and its epoch in W&B's summary, and the best weights as an artifact if asked."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: float | None = None
        self.epoch: int | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes what the epoch before has reached: a run that is killed has it, too."""
        self._note(trainer)
        self.epoch = trainer.current_epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes what the last epoch has reached."""
        self._note(trainer)

    def _note(self, trainer: Trainer) -> None:
        """Sets `best/<monitor>` and `best/epoch` (counted from 0) where there is a new best checkpoint."""
        checkpoint: Any = trainer.checkpoint_callback
        score = getattr(checkpoint, "best_model_score", None)
        if score is None or self.noted == float(score):
            return
        self.noted = float(score)
        for logger in wandb_loggers(trainer):
            epoch = self.epoch
            if epoch is None:  # resumed: an earlier process reached it
                with contextlib.suppress(ConfigError):  # damaged or gone since, which need not end this run
                    epoch = load_checkpoint(Path(checkpoint.best_model_path), "the best checkpoint").get("epoch")
            logger.summarise({f"best/{checkpoint.monitor}": self.noted, "best/epoch": epoch})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hands the best weights over, where `wandb.log_model` asks for them."""
        best = Path(getattr(trainer.checkpoint_callback, "best_model_path", None) or "none")
        for logger in wandb_loggers(trainer):
            if logger.keeps_model and best.is_file():
                state, _ = load_network_state(best, f"the best checkpoint ({best})")
                with tempfile.TemporaryDirectory() as folder:
                    weights = Path(folder, "network.pt")
                    torch.save(state, weights)
                    logger.keep_weights(
                        weights, {"best": self.noted, "parameters": sum(v.numel() for v in state.values())}
                    )
