"""What a run keeps in its folder to repeat it and to go on from: configuration and checkpoints."""

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from sdsnn_lightning import runs
from sdsnn_lightning.wandb_record import note_config


class RunCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoint by validation as `best.ckpt`; the `checkpoint:` section of an experiment."""


class LastCheckpoint(ModelCheckpoint):
    """Keeps the state after every epoch as `last.ckpt`, to continue from, and the one before it as `previous.ckpt`.

    Not `save_last` of the callback above: that copies the best checkpoint, and only when there is a new one.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", enable_version_counter=False, save_on_train_epoch_end=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keeps the state of an epoch that SIGTERM or Ctrl-C ends early, between two steps (`StopTogether`).

        Other errors, and a second Ctrl-C in the middle of a step, leave that of the last epoch.
        """
        if not isinstance(exception, (KeyboardInterrupt, SIGTERMException)) or trainer.state.fn != TrainerFn.FITTING:
            return
        between_steps = isinstance(exception, SIGTERMException)
        if between_steps and trainer.training and not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        if Path(self.best_model_path).is_file():
            rank_zero_info(f"stopped; to go on, repeat the command with --ckpt_path {self.best_model_path}")


class SaveConfig(SaveConfigCallback):
    """Saves the resolved configuration as `config.yaml` in the run folder and notes it in W&B.

    It repeats the run from its start and in another folder: without the number of this one and a checkpoint in it.
    """

    def __init__(self, parser: LightningArgumentParser, config: Any, **kwargs: Any) -> None:
        saved, resumed = config.clone(), config.get("ckpt_path")
        saved.version = None
        if resumed and runs.version_of(Path(resumed), Path(config.runs), config.name) is not None:
            saved.ckpt_path = None
        super().__init__(parser, saved, **kwargs)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Notes the configuration in W&B; the base class has written the file."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        note_config(trainer, config)
