"""Fewer spikes by distillation and regularisation (Louis et al., ICANN 2024, arXiv 2406.18350).

The paper compares three forms of response distillation, finds that distillation alone makes a network sparser, traces
it to smaller logits, and penalises activations and logits directly. Here each term is a strategy. How they join,
`(1 - a) CE + a L_KD + L_act + L_log`, is our reading; weights, temperature and warm-up are ours, too.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.activity import Response, activity_penalty, logit_penalty, response_distillation
from sdsnn_lightning.metrics.spikes import spiking_layers
from sdsnn_lightning.strategies.arguments import not_negative, one_of, positive
from sdsnn_lightning.strategies.base import Strategy
from sdsnn_lightning.strategies.logits import ReadoutStrategy
from sdsnn_lightning.strategies.schedules import Linear, Schedule
from sdsnn_lightning.types import Step

if TYPE_CHECKING:
    from sdsnn_lightning.distiller import Distiller


class ResponseDistillation(ReadoutStrategy):
    """Response distillation in one of three forms, on the read-outs `[B, K]`.

    `losses.activity.response_distillation`: `mse` is the paper's first, the others are our readings of its two. With
    `model.init_args.alpha: 0.5` (our default of the share a) the total is `(1 - a) CE + a L_KD`.
    """

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        form: Response = "mse",
        temperature: float = 4.0,
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            form: `mse` between logits, `soft` divergence of softened probabilities, or `soft_mse` between these.
            temperature: tau of the soft forms; positive.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If the form is unknown or the temperature not positive.
        """
        super().__init__(weight, name)
        self.form = one_of(form, ("mse", "soft", "soft_mse"), "ResponseDistillation.form")
        self.temperature = positive(temperature, "ResponseDistillation.temperature")

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term; a scalar."""
        return response_distillation(*self.readouts(step), self.form, self.temperature)


class ActivityRegularisation(Strategy):
    """Penalises the firing rate of every spiking layer of the student: `weight * sum_l r_l` (or `r_l^2`).

    The spikes are taken, with their surrogate gradient, from every layer of neurons of the student while it trains;
    where SpikeSCR drops neurons, from those that are left, scaled as dropout does.
    Whatever share `model.init_args.alpha` leaves to strategies also scales this one.
    """

    needs_teacher = False

    def __init__(
        self,
        weight: float | Schedule = 0.01,
        warmup: float = 0.1,
        norm: Literal["l1", "l2"] = "l1",
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; 1e-4 to 1e-1 are worth trying (ours). A schedule is taken as it is.
            warmup: Share of the run over which a number as `weight` rises from 0, in [0, 1].
            norm: `l1` penalises rates, `l2` their squares.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If `warmup` is out of its range or the norm unknown.
        """
        super().__init__(warmed_up(weight, warmup, "ActivityRegularisation"), name)
        self.norm = one_of(norm, ("l1", "l2"), "ActivityRegularisation.norm")
        self._hooks: list[RemovableHandle] = []
        self._spikes: dict[str, list[Tensor]] = {}  # what each call of a layer put out, by the layer's name
        self._rate: Tensor | None = None

    def build(self, distiller: "Distiller") -> nn.Module | None:
        """Makes sure that the student has spiking neurons; there are no parameters of this term.

        Raises:
            ConfigError: If it has none.
        """
        if not spiking_layers(distiller.student):
            raise ConfigError(
                f"{self.name}: {type(distiller.student).__name__} has no spiking neurons; choose another student "
                "(model.init_args.student), or take the strategy out"
            )
        return None

    def watch(self, network: nn.Module) -> None:
        """Keeps what every spiking layer of a network puts out, until `release`."""
        self.release()

        def keep(layer: nn.Module, inputs: Any, output: Any, name: str) -> None:
            if layer.training:  # not a pass that another term makes for its targets
                self._spikes.setdefault(name, []).append(output[0] if isinstance(output, tuple) else output)

        layers = spiking_layers(network)
        self._hooks = [layer.register_forward_hook(partial(keep, name=name)) for name, layer in layers.items()]

    def release(self) -> None:
        """Forgets the spikes and leaves no hook behind."""
        while self._hooks:
            self._hooks.pop().remove()
        self._spikes = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts watching; evaluation between two batches is not watched."""
        self.watch(pl_module.student)  # type: ignore[arg-type]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Stops watching."""
        self.release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves no hook behind."""
        self.release()

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term from the spikes of this batch; a scalar."""
        # A layer that is stepped is called once a step: its calls together are the layer.
        layers = [calls[0] if len(calls) == 1 else torch.cat(calls) for calls in self._spikes.values()]
        penalty = activity_penalty(layers, self.norm)
        fired = torch.stack([layer.detach().float().sum() for layer in layers]).sum()
        self._rate = fired / sum(layer.numel() for layer in layers)
        return penalty

    def logs(self) -> dict[str, Any]:
        """Spikes per neuron and step of all layers together."""
        return {} if self._rate is None else {"rate": self._rate}


class LogitRegularisation(ReadoutStrategy):
    """Penalises the magnitude of the student's logits: `weight * ||z||_2^2 / (B K)`, the paper's own proposal.

    Small logits need little input, so the layers before fall silent. Distillation and this penalty act alike: report
    them one by one before joining them.
    """

    needs_teacher = False

    def __init__(
        self,
        weight: float | Schedule = 0.01,
        warmup: float = 0.1,
        time: Literal["mean", "steps"] = "mean",
        name: str | None = None,
    ) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; 1e-4 to 1e-1 are worth trying (ours). A schedule is taken as it is.
            warmup: Share of the run over which a number as `weight` rises from 0, in [0, 1].
            time: `mean` penalises the mean of the logits over time, `steps` those of every step.
            name: Names the term in logs and checkpoints. Defaults to the class name.

        Raises:
            ConfigError: If `warmup` is out of its range or the word unknown.
        """
        super().__init__(warmed_up(weight, warmup, "LogitRegularisation"), name)
        self.time = one_of(time, ("mean", "steps"), "LogitRegularisation.time")

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the term; a scalar."""
        logits = step.student.logits
        return logit_penalty(logits.mean(0) if self.time == "mean" and logits.ndim == 3 else logits)


def warmed_up(weight: float | Schedule, warmup: float, key: str) -> float | Schedule:
    """Lets a number rise from 0 in a straight line over the first part of a run.

    Args:
        weight: A number, or a schedule, which is returned as it is.
        warmup: Share of the run that the rise takes, in [0, 1].
        key: Names the strategy in the message.

    Returns:
        The weight.

    Raises:
        ConfigError: If `warmup` is out of its range.
    """
    not_negative(warmup, f"{key}.warmup", most=1.0)
    return weight if isinstance(weight, Schedule) or warmup == 0 else Linear(0.0, float(weight), 0.0, warmup)
