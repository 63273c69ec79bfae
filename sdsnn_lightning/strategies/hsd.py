"""Hybrid step-wise distillation, HSD (Zhong et al., ACM MM 2024, arXiv 2409.12507)."""

import copy
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn
from torch.nn import functional

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.temporal import stepwise_distillation
from sdsnn_lightning.networks.conversion import copy_weights, quantised_twin
from sdsnn_lightning.strategies.arguments import not_negative, positive
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.strategies.stepwise import StepwiseStrategy, fill_padding
from sdsnn_lightning.types import Step, View

if TYPE_CHECKING:
    from sdsnn_lightning.distiller import Distiller


class HybridStepwiseDistillation(StepwiseStrategy):
    """A network of quantised activations learns one half of the frames, then teaches the spiking one on the other.

    First part of the run: a twin of the student, with a quantised activation for every neuron, learns the first half of
    a sample's frames by `CE(readout(z), y)`; the read-out is the mean over frames in the paper, the student's own here.
    Then its weights become the student's, a frozen copy of it the teacher, and the student learns the other half by

        `CE(readout(z), y) + distillation (1/T) sum_t tau^2 KL(softmax(z_teacher / tau) || softmax(z_t / tau))`,

    with `z_teacher` `[B, K]` the mean of the teacher's logits over the first half. The whole objective: set
    `model.init_args.alpha: 1`. No teacher from outside.

    The two parts, the halves, tau 2, weight 1 and L = 4 are the paper's code's. Ours: one run for both parts with one
    learning-rate schedule (the code fine-tunes with Adam at 1e-5), the mean over samples where the code also divides by
    K, and any student. With `networks.conversion.Converted` its neurons integrate and fire as in the paper, the exact
    counterpart of the twin's activations; others keep their own neurons, to which fine-tuning adapts. Unlike the
    released code, teacher and student are two objects, each sees its own half, and the student runs on its half once.

    Evaluation shows the student all steps of its view. What a resumed run needs is the strategy's state.
    """

    needs_teacher = False
    brings_task = True

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        pretraining: float = 0.5,
        distillation: float = 1.0,
        temperature: float = 2.0,
        levels: int = 4,
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            pretraining: Share of the run in which the twin learns, in [0, 1).
            distillation: Weight of the step-wise divergence.
            temperature: tau, softens both distributions; positive.
            levels: L, levels of the quantised activations.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If a number is out of its range.
        """
        super().__init__(weight, name)
        key = "HybridStepwiseDistillation"
        self.pretraining = not_negative(pretraining, f"{key}.pretraining", most=1.0)
        if pretraining == 1:
            raise ConfigError(f"{key}.pretraining is 1: the student itself would never learn; set it below 1")
        self.distillation = not_negative(distillation, f"{key}.distillation")
        self.temperature = positive(temperature, f"{key}.temperature")
        self.levels = int(positive(levels, f"{key}.levels"))
        self.frozen: nn.Module | None = None
        self._state: dict[str, Tensor] = {}

    def build(self, distiller: "Distiller") -> nn.Module | None:
        """Makes the twin.

        Raises:
            ConfigError: If there are fewer than two frames to divide, or the student has no spiking neurons.
        """
        super().build(distiller)
        steps = len(distiller.example_outputs()[0].logits)
        if steps < 2:
            raise ConfigError(f"{self.name} divides the frames in two, but there is {steps}; use 2 time steps or more")
        self._distiller = distiller
        self.frozen = None
        return quantised_twin(distiller.student, self.levels)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes up the part of the run that a resumed run was in."""
        if self._state:
            self._freeze(pl_module)
            self.frozen.load_state_dict(self._state)  # type: ignore[union-attr]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Converts when its time has come."""
        if self.frozen is None and pl_module.progress >= self.pretraining:  # type: ignore[operator]
            self._freeze(pl_module)
            copy_weights(self.frozen, pl_module.student)  # type: ignore[arg-type]
            for optimizer in trainer.optimizers:
                optimizer.state.clear()  # the momentum of weights that are no more
            rank_zero_info(f"{self.name}: the twin's weights are the student's, and it teaches from here on")

    def _freeze(self, module: Any) -> None:
        """Makes the teacher, a copy of the twin."""
        self.frozen = copy.deepcopy(module.adapters[self.name]).requires_grad_(False).eval()

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term of the part of the run; a scalar."""
        from sdsnn_lightning.classifier import run_network  # it imports the strategies

        assert adapter is not None
        first, second = halves(step.batch.student)
        if self.frozen is None:
            scores = adapter.readout(run_network(adapter, first).logits)  # type: ignore[operator]
            return self._cross_entropy(scores, step.target)
        with torch.no_grad():
            teacher = fill_padding(run_network(self.frozen, first).logits, first).mean(0)
        logits = run_network(self._distiller.student, second).logits
        task = self._cross_entropy(self.student_readout(logits), step.target)
        # The twin has no more part in it, but every rank of a distributed run waits for its gradient.
        nothing = torch.stack([p.sum() for p in adapter.parameters()]).sum() * 0.0
        return task + self.distillation * stepwise_distillation(teacher, logits, self.temperature) + nothing

    def _cross_entropy(self, scores: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(scores.float(), target, label_smoothing=self.label_smoothing)

    def logs(self) -> dict[str, Any]:
        """The part of the run, 1 or 2."""
        return {"stage": 1.0 if self.frozen is None else 2.0}

    def state_dict(self) -> dict[str, Any]:
        """The frozen teacher's weights; empty in the first part."""
        state = {} if self.frozen is None else self.frozen.state_dict()
        return {"teacher": {key: value.detach().to("cpu", copy=True) for key, value in state.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the state of an interrupted run; `on_fit_start` acts on it."""
        self._state = state_dict["teacher"]


def halves(view: View) -> tuple[View, View]:
    """Cuts every modality `[B, T, ...]` after `T // 2` steps; one of a single step goes to both halves whole.

    Args:
        view: Modalities by name.

    Returns:
        The first and the second half.
    """
    cut = {name: x.shape[1] // 2 for name, x in view.items()}
    first = {name: x[:, : cut[name]] if cut[name] else x for name, x in view.items()}
    return first, {name: x[:, cut[name] :] for name, x in view.items()}
