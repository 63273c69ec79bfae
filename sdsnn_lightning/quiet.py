"""Keeps what a user need not read out of the terminal: each message here is true, known and of no consequence."""

import logging
import os
import warnings

MESSAGES = (
    "Trainer already configured with model summary",  # we add the rich one ourselves
    "For seamless cloud",  # advertisements of other services
    "litlogger",
    "litmodels",
    "Experiment logs directory",  # config.yaml is written into the new run folder before the first metric
    "treespec",
    "smaller than the logging interval",
    "does not have many workers",  # the caches are faster in the training process
    "in eval mode at the start of training",  # the teacher, on purpose
    "The dirpath has changed",  # an evaluation makes no checkpoints
    "Checkpoint directory",
    "Seed set to",
    "to estimate number of stepping batches",
    "GPU available",
    "TPU available",
    "LightningCLI's args parameter",
    "`broadcast_buffers` is deprecated",  # for one that synchronises at the start, which we do not want to depend on
    "sync_dist=True",  # the metrics synchronise themselves
)
SRUN = "The `srun` command is available"
"""Lightning's hint where Slurm is installed and did not start the process. In a job, that is worth to be read."""


class _Filter(logging.Filter):
    def __init__(self, messages: tuple[str, ...]) -> None:
        super().__init__()
        self.messages = messages

    def filter(self, record: logging.LogRecord) -> bool:
        """Drops the known messages."""
        text = record.getMessage()
        return not any(message in text for message in self.messages)


def keep_quiet() -> None:
    """Drops the known messages from Lightning's and W&B's loggers and from Python's warnings."""
    messages = MESSAGES if "SLURM_JOB_ID" in os.environ else (*MESSAGES, SRUN)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero", "wandb",
                 "lightning.fabric.utilities.rank_zero", "lightning.fabric.utilities.seed"):  # fmt: skip
        logging.getLogger(name).addFilter(_Filter(messages))
    for message in messages:
        warnings.filterwarnings("ignore", message=f".*{message}")
