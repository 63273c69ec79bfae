"""KDCL: distillation along a curriculum over time steps, from many fine ones to few coarse ones."""

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn

from sdsnn_lightning.checkpoints import check_state
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.logits import distillation_loss, entropy_weighted_distillation
from sdsnn_lightning.strategies.arguments import one_of, positive
from sdsnn_lightning.strategies.logits import ReadoutStrategy
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.strategies.stages import Stage, stage_ends
from sdsnn_lightning.types import Step, View

if TYPE_CHECKING:
    from sdsnn_lightning.distiller import Distiller


class TimeStepCurriculum(ReadoutStrategy):
    """Knowledge distillation based on curriculum learning, KDCL (Wang et al., arXiv 2412.12858; PTCD in the journal).

    Every stage trains the student at one time resolution. The finished student becomes the next stage's frozen teacher,
    which hears the same utterances at its own resolution, and the next student starts from its weights: they do not
    depend on the number of time steps. Each stage starts optimizer and learning-rate schedule anew. Without a teacher
    in the configuration the first stage is plain training; with one, it is distilled, too.

    The loss is the official code's, `CE(p_s, y) + weight * tau^2 KL(softmax(p_t / tau) || softmax(p_s / tau))`, with
    read-outs `p = sum_t softmax(z_t)` of either network over its own time steps, weight 0.5 and tau 1. Ours are the
    choice of the promoted weights (the best of the stage by validation; the authors chose by hand), the restart of the
    optimizer, and `readout="mean"`.

    What it must remember (stage, best weights of the stage, promoted teacher) is its `state_dict`: a run that is killed
    at any time and resumed ends with the weights of an undisturbed one. The best weights of every finished stage are
    also kept as `stage<n>.ckpt` beside the run's checkpoints.
    """

    needs_teacher = False

    def __init__(
        self,
        stages: list[Stage],
        weight: float | Schedule = 0.5,
        temperature: float = 1.0,
        readout: Literal["sum", "mean"] = "sum",
        entropy_weighted: bool = False,
        monitor: str = "val/WAR",
        mode: Literal["max", "min"] = "max",
        name: str | None = None,
    ) -> None:
        """Creates the curriculum.

        Args:
            stages: From the easiest, with the finest time steps, to the hardest.
            weight: Multiplies the term; a number, or a schedule of training progress.
            temperature: tau, softens both distributions; positive.
            readout: Compares `p` itself, or `p` divided by its own number of real time steps, so that teacher and
                student with the same mean distribution agree.
            entropy_weighted: Weighs every sample by the entropy of the student's answer (in the official code, unused).
            monitor: Logged validation score that chooses the weights to promote.
            mode: Whether its highest or its lowest value is the best; `min` for a loss.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If there is no stage, or a number is out of its range.
        """
        super().__init__(weight, name)
        self.stages = [Stage(**stage) if isinstance(stage, dict) else stage for stage in stages]
        if not self.stages:
            raise ConfigError("TimeStepCurriculum.stages is empty; give at least one {step_ms: ...}")
        for index, stage in enumerate(self.stages):
            for key in ("step_ms", "share", "teacher_step_ms"):
                value = getattr(stage, key)
                if value is not None and not 0 < value < math.inf:
                    raise ConfigError(f"TimeStepCurriculum.stages[{index}].{key} is {value}; set it above 0")
        self.temperature = positive(temperature, "TimeStepCurriculum.temperature")
        self.readout, self.entropy_weighted = readout, entropy_weighted
        self.monitor, self.mode = monitor, one_of(mode, ("max", "min"), "TimeStepCurriculum.mode")
        self.stage = -1  # before the first
        self.best_score: float | None = None
        self.best: dict[str, Tensor] = {}
        self.promoted: dict[str, Tensor] = {}

    def build(self, distiller: "Distiller") -> nn.Module | None:
        """Checks that the stages fit run and data (fast_dev_run tries the first); this term has no parameters."""
        trainer: Any = distiller.trainer
        for callback in trainer.callbacks:
            if isinstance(callback, WeightAveraging | StochasticWeightAveraging):
                raise ConfigError(
                    f"{type(callback).__name__} (trainer.callbacks) averages over the stages of TimeStepCurriculum, "
                    "which start anew; take one of them out"
                )
            if isinstance(callback, EarlyStopping) and len(self.stages) > 1:
                raise ConfigError(
                    "EarlyStopping (trainer.callbacks) may end the run in an early stage of TimeStepCurriculum, as it "
                    "compares scores of different time steps; take one of them out"
                )
        if trainer.max_steps not in (-1, None) and not trainer.fast_dev_run:
            raise ConfigError(
                f"trainer.max_steps is {trainer.max_steps}, but the stages of TimeStepCurriculum share out "
                "trainer.max_epochs; leave max_steps out"
            )
        self.ends = stage_ends(self.stages, len(self.stages) if trainer.fast_dev_run else trainer.max_epochs or 0)
        data: Any = trainer.datamodule
        self.teacher_step_ms: float | None = getattr(data, "teacher_step_ms", None)  # before the stages change it
        last = self.stages[-1].step_ms
        if getattr(data, "step_ms", last) != last:
            raise ConfigError(
                f"data.init_args.step_ms is {data.step_ms} but the last stage has {last}; "
                "set it to the last stage's, which validation and test then use"
            )
        for index in range(len(self.stages)):  # now: the last one may begin days later
            try:
                copy.copy(data).set_resolution(*self.steps(index))
            except ConfigError as error:
                raise ConfigError(f"TimeStepCurriculum.stages[{index}]: {error}") from None
        if distiller.teacher is not None:
            what = "the teacher of the curriculum (model.init_args.teacher)"
            check_state(distiller.student.state_dict(), distiller.teacher.state_dict(), what)
        return super().build(distiller)

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term on the read-outs `[B, K]`; 0 in a first stage without teacher."""
        if step.teacher is None:
            return step.student.logits.new_zeros(())
        teacher, student = self.readouts(step)
        if self.readout == "mean":
            teacher = teacher / real_steps(step.batch.teacher, step.teacher.logits)
            student = student / real_steps(step.batch.student, step.student.logits)
        loss = entropy_weighted_distillation if self.entropy_weighted else distillation_loss
        return loss(teacher, student, self.temperature)

    def logs(self) -> dict[str, Any]:
        """The stage, counted from 1, and its time step."""
        return {"stage": float(self.stage + 1), "step_ms": self.stages[self.stage].step_ms}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes up the stage that a resumed run was in."""
        if self.stage >= 0:
            if self.promoted:
                self._set_teacher(pl_module, self.promoted)
            self._arrange(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses to go on with a run whose epochs so far belong to other stages than these settings give them."""
        epoch, due = trainer.current_epoch, self._due(trainer)
        begins = epoch == [0, *self.ends][due]
        if self.stage != due and not (begins and self.stage == due - 1):
            raise ConfigError(
                f"the run to continue is in stage {self.stage + 1} of the curriculum at epoch {epoch}, which is "
                f"in stage {due + 1} of these settings; leave trainer.max_epochs and the stages as they were"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the stage that is due."""
        if self.stage < self._due(trainer):
            self._next_stage(trainer, pl_module)

    def _due(self, trainer: Trainer) -> int:
        """Index of the stage that the current epoch belongs to."""
        return next(index for index, end in enumerate(self.ends) if trainer.current_epoch < end)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the student's weights if they are the best of this stage."""
        if trainer.sanity_checking or self.stage < 0:
            return
        if self.monitor not in trainer.callback_metrics:
            raise ConfigError(
                f"TimeStepCurriculum.monitor: nothing is logged as {self.monitor}; "
                f"choose one of {', '.join(sorted(k for k in trainer.callback_metrics if k.startswith('val/')))}"
            )
        score = float(trainer.callback_metrics[self.monitor])
        sign = 1 if self.mode == "max" else -1
        if not math.isnan(score) and (self.best_score is None or sign * score > sign * self.best_score):
            self.best_score, self.best = score, _copy(pl_module.student)  # type: ignore[arg-type]

    def _next_stage(self, trainer: Trainer, module: Any) -> None:
        """Promotes the best student of the finished stage, and starts the next one from it."""
        if self.stage >= 0:
            self.promoted = self.best or _copy(module.student)
            module.student.load_state_dict(self.promoted)
            folder = _start_checkpoints_anew(trainer)
            if folder is not None:
                trainer.save_checkpoint(folder / f"stage{self.stage + 1}.ckpt", weights_only=True)
            self._set_teacher(module, self.promoted)
        elif module.teacher is not None:
            module.student.load_state_dict(module.teacher.state_dict())
        reached = "" if self.stage < 0 else " (last weights promoted, as none were validated)"
        if self.best_score is not None:
            reached = f" ({self.monitor} {self.best_score:.3f} promoted)"
        self.stage, self.best_score, self.best = self.stage + 1, None, {}
        self._arrange(trainer, module)
        if self.stage > 0:
            trainer.strategy.setup_optimizers(trainer)
        rank_zero_info(
            f"stage {self.stage + 1} of {len(self.stages)}: steps of {self.stages[self.stage].step_ms:g} ms{reached}"
        )

    def _arrange(self, trainer: Trainer, module: Any) -> None:
        """Sets the data's time resolution and the part of the run that the learning-rate schedule covers."""
        trainer.datamodule.set_resolution(*self.steps(self.stage))  # type: ignore[attr-defined]
        begin = self.ends[self.stage - 1] if self.stage else 0
        module.span = (begin / self.ends[-1], self.ends[self.stage] / self.ends[-1])

    def steps(self, index: int) -> tuple[float, float]:
        """Time steps of student and teacher in a stage, in milliseconds."""
        stage = self.stages[index]
        before = self.stages[index - 1].step_ms if index else self.teacher_step_ms
        return stage.step_ms, stage.teacher_step_ms or before or stage.step_ms

    def _set_teacher(self, module: Any, weights: dict[str, Tensor]) -> None:
        """Freezes a copy of the student with these weights as the teacher."""
        if module.teacher is None:
            module.teacher = copy.deepcopy(module.student)
            module.teacher.requires_grad_(False).eval()
        module.teacher.load_state_dict(weights)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: the stage, the best of it so far, and the promoted teacher."""
        begun = [stage.step_ms for stage in self.stages[: self.stage + 1]]
        best = {"best_score": self.best_score, "best": self.best}
        return {"stage": self.stage, "begun": begun, **best, "promoted": self.promoted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the state of an interrupted run, whose stages so far must be these; `on_fit_start` acts on it."""
        ours = [stage.step_ms for stage in self.stages[: state_dict["stage"] + 1]]
        begun = state_dict.get("begun", ours)  # earlier versions did not keep it
        if len(ours) <= state_dict["stage"] or begun != ours:
            raise ConfigError(
                f"the run to continue has begun stages of {begun} ms, but TimeStepCurriculum.stages begin with {ours}: "
                "leave them as they were, or start anew"
            )
        self.stage, self.best_score = state_dict["stage"], state_dict["best_score"]
        self.best, self.promoted = state_dict["best"], state_dict["promoted"]


def real_steps(view: View, logits: Tensor) -> Tensor | int:
    """Number of time steps that are not padding: `[B, 1]` by the view's `mask` `[B, T]`, or T of `[T, B, K]` logits."""
    return view["mask"].sum(1, keepdim=True).clamp(min=1) if "mask" in view else len(logits)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    """A network's weights, on the CPU."""
    return {key: value.detach().to("cpu", copy=True) for key, value in network.state_dict().items()}


def _start_checkpoints_anew(trainer: Trainer) -> Path | None:
    """Makes the callbacks that keep the best checkpoint forget those of the finished stage; returns their folder."""
    folder = None
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
            callback.best_k_models, callback.best_model_path, callback.kth_best_model_path = {}, "", ""
            callback.best_model_score = callback.current_score = None
            callback.kth_value = torch.tensor(-math.inf if callback.mode == "max" else math.inf)
            folder = Path(callback.dirpath) if callback.dirpath else folder
    return folder
