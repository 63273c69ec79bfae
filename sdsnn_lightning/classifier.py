"""The Lightning module that trains one network with cross-entropy: a teacher, or a student alone."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from sdsnn_lightning.checkpoints import check_classes, check_state
from sdsnn_lightning.errors import ConfigError, NonFiniteLossError
from sdsnn_lightning.metrics.emotion import ClassificationScores
from sdsnn_lightning.plateau import PlateauModule
from sdsnn_lightning.strategies.base import Strategy
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.types import Batch, Output, View

NetworkFactory = Callable[[int], nn.Module]
"""Makes a network from the number of classes. In a YAML: a `class_path` whose first argument is `num_classes`."""
CURE = "lower the learning rate (model.init_args.optimizer.init_args.lr)"


def network_inputs(network: nn.Module, view: View) -> tuple[Tensor, ...]:
    """Picks exactly the modalities a network names, time-first.

    Args:
        network: Follows the `Network` contract; names its modalities in `inputs`.
        view: Modalities by name, each `[B, T, ...]`.

    Returns:
        Its inputs in order, each `[T, B, ...]`.

    Raises:
        ConfigError: If the view lacks a modality that the network names.
    """
    missing = [name for name in network.inputs if name not in view]  # type: ignore[union-attr]
    if missing:
        raise ConfigError(
            f"{type(network).__name__} needs the input '{missing[0]}' but the data gives {sorted(view)}; "
            "choose another network or data module"
        )
    return tuple(view[name].transpose(0, 1) for name in network.inputs)  # type: ignore[union-attr]


def run_network(network: nn.Module, view: View) -> Output:
    """Runs a network on the modalities it names; logits come back as `[T, B, K]` or `[B, K]`."""
    return network(*network_inputs(network, view))


class Classifier(PlateauModule):
    """Trains one network with cross-entropy: a teacher, or a student without distillation.

    Attributes:
        span: The part of the run, begin and end in [0, 1], that a `Schedule` of the learning rate stretches over. The
            whole run, unless a curriculum starts it anew in every stage.

    Example:
        >>> from functools import partial
        >>> from torch.optim import SGD
        >>> from sdsnn_lightning import Classifier
        >>> from sdsnn_lightning.networks import SpikingKeyword
        >>> model = Classifier(SpikingKeyword, num_classes=10, optimizer=partial(SGD, lr=0.1))
        >>> type(model.network).__name__, model.num_classes
        ('SpikingKeyword', 10)
    """

    def __init__(
        self,
        network: NetworkFactory,
        num_classes: int,
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable | Schedule | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        label_smoothing: float = 0.0,
        view: Literal["student", "teacher"] = "student",
        lean_memory: bool = False,
    ) -> None:
        """Creates the module.

        Args:
            network: Makes the network from the number of classes.
            num_classes: Number of classes K; the command line takes it from the data.
            optimizer: Makes the optimizer from the trainable parameters.
            scheduler: Makes the learning-rate schedule from the optimizer; or a `Schedule`, which multiplies the
                learning rate by its value at the training progress, whatever the number of epochs.
            scheduler_interval: Whether the schedule advances every epoch or every step; a `Schedule`: every step.
            label_smoothing: Of the cross-entropy, in [0, 1).
            view: Which of the batch's two views over time the network sees.
            lean_memory: Whether spikes are kept for backward as bits, and currents computed again: the same gradients
                in about 0.6 of the memory, for a fifth to a third more time; see `sdsnn_lightning.lean`.

        Raises:
            ConfigError: If `label_smoothing` is out of its range.
        """
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"model.init_args.label_smoothing is {label_smoothing}; set it to at least 0 and below 1")
        self.network = network if isinstance(network, nn.Module) else network(num_classes)
        self.num_classes = num_classes
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.scheduler_interval = scheduler_interval
        self.label_smoothing = label_smoothing
        self.view = view
        self.lean_memory = lean_memory
        self.strategies: dict[str, Strategy] = {}
        self.span = (0.0, 1.0)
        self.scores: nn.ModuleDict | None = None
        self.losses: nn.ModuleDict | None = None
        self.trained_on: str | None = None

    def add_strategy(self, strategy: Strategy) -> None:
        """Refuses every strategy: cross-entropy is all there is here.

        Args:
            strategy: Stands in `trainer.callbacks`.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"strategy '{strategy.name}' (trainer.callbacks) needs a Distiller; "
            "set model.class_path: sdsnn_lightning.Distiller, or take it out"
        )

    def setup(self, stage: str) -> None:
        """Makes the metrics for the classes and groups of the data at hand."""
        data, classes = self._datamodule, self.num_classes
        names = getattr(data, "class_names", None) or [str(k) for k in range(classes)]
        groups = getattr(data, "groups", {})
        self.scores = nn.ModuleDict({part: ClassificationScores(classes, names, groups) for part in ("val", "test")})
        # Not Lightning's own mean, which is off where processes have unequal shares.
        self.losses = nn.ModuleDict({part: MeanMetric() for part in ("val", "test")})

    @property
    def _datamodule(self) -> Any:
        """The data module, or None where plain loaders are used."""
        return getattr(self._trainer, "datamodule", None)

    @property
    def progress(self) -> float:
        """Training progress in [0, 1]; 0 outside training."""
        if self._trainer is None or not self._trainer.training:
            return 0.0
        total = self._trainer.estimated_stepping_batches
        return min(1.0, self._trainer.global_step / total) if 0 < total < float("inf") else 0.0

    def learning_rate_factor(self, step: int) -> float:
        """The scheduler's `Schedule` at the progress within `span`, the part of the run that it stretches over.

        Args:
            step: Ignored: progress is known.
        """
        begin, end = self.span
        share = (self.progress - begin) / (end - begin)
        return self.scheduler_factory(min(1.0, max(0.0, share)))  # type: ignore[return-value, misc, arg-type]

    def forward(self, view: View) -> Tensor:
        """Class scores `[B, K]` of a view `[B, T, ...]`."""
        return self.network.readout(run_network(self.network, view).logits).float()  # type: ignore[operator]

    def task_loss(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of the network's read-out, in float32; a scalar."""
        scores = self.network.readout(output.logits).float()  # type: ignore[operator]
        return functional.cross_entropy(scores, target, label_smoothing=self.label_smoothing)

    def _trained_output(self, view: View) -> Output:
        """The output of the network that is trained, whose backward follows."""
        from sdsnn_lightning.lean import lean_memory

        with lean_memory(self.network) if self.lean_memory else nullcontext():
            return run_network(self.network, view)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One training step; returns the loss."""
        loss = self.task_loss(self._trained_output(getattr(batch, self.view)), batch.target)
        return self._finish({"task": loss}, loss)

    def _finish(self, terms: dict[str, Tensor], total: Tensor) -> Tensor:
        """Logs every term by name and refuses to train on with a loss that is not finite."""
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()})
        self.log("train/loss", total.detach(), prog_bar=True)
        # Looking at a value on a GPU waits for the device, so there it is done only when logs are written anyway.
        due = total.device.type == "cpu" or self.global_step % max(1, self.trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]
        if due and not torch.isfinite(total):
            bad = [name for name, term in terms.items() if not torch.isfinite(term)] or ["total"]
            raise NonFiniteLossError(
                f"loss term '{bad[0]}' is {terms.get(bad[0], total).item()} at step {self.global_step}; "
                f"{CURE} or the term's weight"
            )
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds one batch to the validation scores."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds one batch to the test scores."""
        self._evaluate("test", batch)

    def _evaluate(self, part: str, batch: Batch) -> None:
        scores = self._finite_scores(part, batch)
        self.losses[part].update(functional.cross_entropy(scores, batch.target), len(scores))  # type: ignore[index, operator]
        self.scores[part].update(scores, batch.target, batch.groups)  # type: ignore[index, operator]

    def _finite_scores(self, part: str, batch: Batch) -> Tensor:
        """Class scores `[B, K]`; none where one is not finite: a class would look like the answer to every sample."""
        scores = self(getattr(batch, self.view))
        if not torch.isfinite(scores).all():
            raise NonFiniteLossError(f"the network's scores are not finite in {part}; {CURE} and train anew")
        return scores

    def on_validation_epoch_end(self) -> None:
        """Logs WAR, UAR, recall of every class and accuracy of every group."""
        self._log_scores("val", bar=("val/WAR", "val/UAR"))

    def on_test_epoch_end(self) -> None:
        """Logs WAR, UAR, recall of every class and accuracy of every group."""
        self._log_scores("test")

    def _log_scores(self, part: str, bar: tuple[str, ...] = ()) -> None:
        self.log(f"{part}/task", self.losses[part].compute(), rank_zero_only=False)  # type: ignore[index, operator]
        for name, value in self.scores[part].compute().items():  # type: ignore[index, operator]
            self.log(f"{part}/{name}", value, prog_bar=f"{part}/{name}" in bar, rank_zero_only=False)

    def on_validation_epoch_start(self) -> None:
        """Starts the validation scores afresh; the last ones stay readable until then.

        Every process of several validates the network that is saved, with the first one's batch statistics: the scores
        would not be those of any one network otherwise, and a resumed run, which loads that one, would have others.
        """
        if self.trainer.world_size > 1:
            saved = self.network.state_dict()
            for name, buffer in self.network.named_buffers():
                if name in saved:
                    torch.distributed.broadcast(buffer, 0)
        self.scores["val"].reset()  # type: ignore[index, operator]
        self.losses["val"].reset()  # type: ignore[index, operator]

    def on_test_epoch_start(self) -> None:
        """Starts the test scores afresh."""
        self.scores["test"].reset()  # type: ignore[index, operator]
        self.losses["test"].reset()  # type: ignore[index, operator]

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Class probabilities `[B, K]` of one batch, with the group indices of its samples."""
        return {"probabilities": self._finite_scores("predict", batch).softmax(dim=-1), **batch.groups}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimises whatever requires a gradient: the network and every strategy's adapter, never the teacher.

        Raises:
            ConfigError: If the optimizer or the schedule refuses its arguments.
        """
        key = "optimizer"
        try:
            optimizer = self.optimizer_factory([p for p in self.parameters() if p.requires_grad])
            if self.scheduler_factory is None:
                return optimizer
            key = "scheduler"
            if isinstance(self.scheduler_factory, Schedule):
                schedule = {"scheduler": LambdaLR(optimizer, self.learning_rate_factor), "interval": "step"}
            else:
                schedule = {"scheduler": self.scheduler_factory(optimizer), "interval": self.scheduler_interval}
        except (ValueError, TypeError, ZeroDivisionError, RuntimeError) as error:
            raise ConfigError(f"model.init_args.{key}: {error}; correct its init_args") from error
        return {"optimizer": optimizer, "lr_scheduler": {**schedule, "monitor": "val/task"}}  # type: ignore[return-value]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes the classes and the data source beside the weights."""
        checkpoint["sdsnn"] = {
            "class_names": list(getattr(self._datamodule, "class_names", [])),
            **{key: getattr(self._datamodule, key, None) for key in ("data_source", "origin")},
            "split": dict(getattr(self._datamodule, "split_key", {})),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another network or of other classes with one line instead of a list of keys.

        A distilled checkpoint also holds adapters; they are dropped where there is no strategy to use them, so that
        `validate` and `test` need none.
        """
        if not self.strategies:
            for key in [key for key in checkpoint["state_dict"] if key.startswith("adapters.")]:
                del checkpoint["state_dict"][key]
        check_classes(checkpoint, getattr(self._datamodule, "class_names", []), "the checkpoint (--ckpt_path)")
        self.trained_on = checkpoint.get("sdsnn", {}).get("data_source")
        here = getattr(self._datamodule, "data_source", None)
        if self.trained_on and here and self.trained_on != here:
            rank_zero_warn(f"the checkpoint was trained on {self.trained_on} data and now sees {here} data")
        check_state(self.state_dict(), checkpoint["state_dict"], "the checkpoint (--ckpt_path)")
        if self._trainer is not None:
            # Lightning converts the module after it has read the weights: float64 would go through float32.
            self._trainer.precision_plugin.convert_module(self)
