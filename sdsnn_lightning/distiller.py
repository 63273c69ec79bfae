"""The Lightning module that trains a spiking student under a frozen teacher, with loss terms from strategies."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from sdsnn_lightning.checkpoints import check_classes, check_source, check_state, load_network_state
from sdsnn_lightning.classifier import Classifier, NetworkFactory, run_network
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.seeding import seed_place
from sdsnn_lightning.strategies.base import Strategy
from sdsnn_lightning.strategies.schedules import Schedule, weight_at
from sdsnn_lightning.teacher_cache import TeacherCache, check
from sdsnn_lightning.types import Batch, Output, Step, View


class Distiller(Classifier):
    """Trains a student under a frozen teacher. The loss terms come from `Strategy` callbacks.

    The total is `task + sum(weight_i * term_i)`, or with `alpha` the convex form of the MSKD and Hinton papers,
    `(1 - alpha) * task + alpha * sum(weight_i * term_i)`.

    The teacher does not require gradients, stays in evaluation mode, and is part of neither the optimizer nor the
    checkpoint.

    Example:
        >>> from functools import partial
        >>> from torch.optim import SGD
        >>> from sdsnn_lightning import Distiller
        >>> from sdsnn_lightning.networks import KeywordConvNet, SpikingKeyword
        >>> optimizer = partial(SGD, lr=0.1)
        >>> model = Distiller(SpikingKeyword, num_classes=10, optimizer=optimizer, teacher=KeywordConvNet, alpha=0.5)
        >>> any(weight.requires_grad for weight in model.teacher.parameters())
        False
        >>> model.train().teacher.training
        False
    """

    def __init__(
        self,
        student: NetworkFactory,
        num_classes: int,
        optimizer: OptimizerCallable,
        teacher: NetworkFactory | None = None,
        teacher_checkpoint: str | None = None,
        teacher_experiment: str | None = None,
        alpha: float | Schedule | None = None,
        scheduler: LRSchedulerCallable | Schedule | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        label_smoothing: float = 0.0,
        lean_memory: bool = False,
        teacher_cache: float | None = None,
    ) -> None:
        """Creates the module.

        Args:
            student: Makes the student from the number of classes.
            num_classes: Number of classes K; the command line takes it from the data.
            optimizer: Makes the optimizer from the trainable parameters.
            teacher: Makes the teacher from the number of classes; None for methods without one.
            teacher_checkpoint: Its weights: a checkpoint of a run, or a plain state dict.
            teacher_experiment: The YAML that trains the teacher. The command line runs it first where
                `teacher_checkpoint` does not exist yet; under `trainer.fast_dev_run` the teacher is then untrained.
            alpha: Share of distillation in the total, in [0, 1]; a number or schedule. None adds the terms as they are.
            scheduler: As of `Classifier`.
            scheduler_interval: As of `Classifier`.
            label_smoothing: Of the cross-entropy, in [0, 1).
            lean_memory: As of `Classifier`.
            teacher_cache: Gigabytes of main memory for the teacher's outputs, which are then computed once a run
                instead of once an epoch; None keeps none. Refused where augmentation or random windows change what the
                teacher sees of a sample.

        Raises:
            ConfigError: If `alpha` or `teacher_cache` is out of its range.
        """
        super().__init__(
            student, num_classes, optimizer, scheduler, scheduler_interval, label_smoothing, lean_memory=lean_memory
        )
        self.teacher: nn.Module | None = None
        if teacher is not None:
            self.teacher = teacher if isinstance(teacher, nn.Module) else teacher(num_classes)
            self.teacher.requires_grad_(False).eval()
        self.teacher_checkpoint = teacher_checkpoint
        self.teacher_experiment = teacher_experiment
        self._teacher_loaded = False
        shares = [] if alpha is None else [weight_at(alpha, k / 100) for k in range(101)]
        if wrong := [share for share in shares if not 0 <= share <= 1]:
            share = f"{wrong[0]:g}" if isinstance(alpha, Schedule) else alpha
            raise ConfigError(f"model.init_args.alpha is {share}; set it between 0 and 1")
        self.alpha = alpha
        self.teacher_cache = None if teacher_cache is None else TeacherCache(teacher_cache)
        self.adapters = nn.ModuleDict()

    @property
    def student(self) -> nn.Module:
        """The network that is trained."""
        return self.network

    def add_strategy(self, strategy: Strategy) -> None:
        """Takes in a strategy and registers its adapter, before the optimizer is made.

        Args:
            strategy: Its `name` must differ from those already there.

        Raises:
            ConfigError: If the name is taken, or the strategy needs a teacher or classes and there are none.
        """
        if self.strategies.get(strategy.name) is strategy:
            return
        self._forget_strategies()
        if strategy.name in self.strategies or strategy.name in ("task", "loss"):
            raise ConfigError(f"two loss terms are named '{strategy.name}'; give one strategy another init_args.name")
        if strategy.needs_teacher and self.teacher is None:
            raise ConfigError(f"strategy '{strategy.name}' needs a teacher; set model.init_args.teacher")
        if strategy.needs_classes and getattr(self._datamodule, "mixes", False):
            raise ConfigError(
                f"strategy '{strategy.name}' needs one class a sample, which mixed samples do not have; "
                "set data.init_args.mixup: 0"
            )
        self._load_teacher()
        with isolate_rng():  # its first weights depend on its name alone, not on what was drawn before
            seed_place(*strategy.name.encode())
            adapter = strategy.build(self)
        if adapter is not None:
            self.adapters[strategy.name] = adapter
        self.strategies[strategy.name] = strategy

    @cached_property
    def _example_outputs(self) -> tuple[Output, Output | None]:
        shapes = self._datamodule.input_shapes
        view = {name: torch.zeros(1, *shape) for name, shape in shapes.items()}
        networks = [self.student] + ([self.teacher] if self.teacher is not None else [])
        modes = [network.training for network in networks]
        with torch.no_grad():
            outputs = [run_network(network.eval().cpu(), view) for network in networks]
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)
        return outputs[0], outputs[1] if len(outputs) > 1 else None

    def example_outputs(self) -> tuple[Output, Output | None]:
        """Both networks' outputs on one zero sample (`B = 1`), for the names and shapes of features and logits."""
        return self._example_outputs

    def setup(self, stage: str) -> None:
        """Loads the teacher's weights, for training only: evaluating a student needs no teacher file."""
        super().setup(stage)
        if stage != "fit":
            return
        self._load_teacher()
        self._forget_strategies()
        if self.alpha is not None and not self.strategies:
            raise ConfigError(
                "model.init_args.alpha gives distillation a share, but there is no strategy; name one in "
                "trainer.callbacks (a second --config replaces that list, `callbacks+:` appends)"
            )
        moving = [w for w in (self.alpha, *(s.weight for s in self.strategies.values())) if isinstance(w, Schedule)]
        if moving and self.trainer.max_epochs == -1 and self.trainer.max_steps == -1:
            raise ConfigError("a schedule needs to know how long training is; set trainer.max_epochs or max_steps")

    def _forget_strategies(self) -> None:
        """Drops the strategies of an earlier fit that are not among this Trainer's callbacks."""
        here = {id(callback) for callback in self.trainer.callbacks}  # type: ignore[attr-defined]
        for name in [name for name, strategy in self.strategies.items() if id(strategy) not in here]:
            del self.strategies[name]
            if name in self.adapters:
                del self.adapters[name]

    def _load_teacher(self) -> None:
        """Loads the teacher's weights once, before any strategy is built on them."""
        if self.teacher is None or self.teacher_checkpoint is None or self._teacher_loaded:
            return
        path = Path(self.teacher_checkpoint)
        if self.teacher_experiment and self.trainer.fast_dev_run and not path.exists():  # type: ignore[attr-defined]
            rank_zero_warn(f"fast_dev_run: {path} does not exist, so the teacher of this trial is untrained")
            return
        what = f"the teacher (model.init_args.teacher_checkpoint: {path})"
        state, checkpoint = load_network_state(path, what)
        check_classes(checkpoint, getattr(self._datamodule, "class_names", []), what)
        check_source(checkpoint, getattr(self._datamodule, "data_source", None), what, "train it anew")
        theirs, split = checkpoint.get("sdsnn", {}).get("split", {}), getattr(self._datamodule, "split_key", {})
        for key in [key for key in split if key in theirs and theirs[key] != split[key]]:
            raise ConfigError(
                f"{what} was trained with data.init_args.{key}: {theirs[key]} but this run has {split[key]}: it may "
                "have seen what this run evaluates on; delete it to train it anew, or give another path"
            )
        check_state(self.teacher.state_dict(), state, what)
        for key in [key for key, value in state.items() if not torch.isfinite(value).all()]:
            raise ConfigError(f"{what} holds numbers in {key} that are not finite; train it anew, or give another path")
        self.teacher.load_state_dict(state)
        self._teacher_loaded = True

    def train(self, mode: bool = True) -> "Distiller":
        """Sets the training mode of everything but the teacher, which stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def on_train_start(self) -> None:
        """Refuses a cache of the teacher's outputs where it would not pay, or be wrong."""
        if self.teacher_cache is not None and self.teacher is not None:
            check(self.teacher, self._datamodule, self.device, self.trainer.precision_plugin.forward_context)

    def _teacher_output(self, teacher: nn.Module, view: View) -> Output:
        """What the teacher says, without gradient."""
        if self.teacher_cache is not None:
            return self.teacher_cache(teacher, view)
        with torch.no_grad():
            return run_network(teacher, view)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Task loss plus every strategy's weighted term."""
        teacher = None
        if self.teacher is not None:
            teacher = self._teacher_output(self.teacher, batch.teacher)
        student = self._trained_output(batch.student)
        step = Step(batch, student, teacher, batch.target, self.progress)

        share = None if self.alpha is None else weight_at(self.alpha, step.progress)
        terms = {"task": self.task_loss(student, batch.target)}
        total = terms["task"] * (1.0 if share is None else 1.0 - share)
        for name, strategy in self.strategies.items():
            adapter = self.adapters[name] if name in self.adapters else None  # noqa: SIM401 (ModuleDict has no get)
            terms[name] = strategy.loss(step, adapter)
            weight = weight_at(strategy.weight, step.progress) * (1.0 if share is None else share)
            total = total + weight * terms[name]
            self.log(f"train/{name}_weight", weight)
            self.log_dict({f"train/{name}/{key}": value for key, value in strategy.logs().items()})
        return self._finish(terms, total)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves the teacher out of the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        for key in [key for key in state if key.startswith("teacher.")]:
            del state[key]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the teacher at hand, which checkpoints do not hold; every other key is checked."""
        state = {key: value for key, value in self.state_dict().items() if key.startswith("teacher.")}
        checkpoint["state_dict"].update(state)
        super().on_load_checkpoint(checkpoint)
