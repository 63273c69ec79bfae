"""The base class of every distillation strategy."""

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.strategies.schedules import Schedule
from sdsnn_lightning.types import Step

if TYPE_CHECKING:
    from sdsnn_lightning.distiller import Distiller


class Strategy(Callback):
    """One named, weighted loss term, as a Lightning callback.

    A method is one subclass with one method, `loss`::

        class LogitMSE(Strategy):
            def loss(self, step, adapter):
                return (step.student.logits - step.teacher.logits).square().mean()

    Name it in a YAML under `trainer.callbacks` and it trains. If the term needs trainable parts (a projection, a
    generator), return them from `build`: they are registered as `distiller.adapters[name]`, hence moved, synchronised,
    optimised and checkpointed with no further code, and handed back to `loss` as `adapter`.

    The term is always computed and multiplied by its weight, even by 0, so that every rank of a distributed run sees
    the same graph.

    Example:
        >>> import torch
        >>> from sdsnn_lightning import Output, Step, Strategy
        >>> from sdsnn_lightning.strategies import Linear
        >>> class LogitMSE(Strategy):
        ...     def loss(self, step, adapter):
        ...         return (step.student.logits - step.teacher.logits).square().mean()
        >>> strategy = LogitMSE(weight=Linear(0.0, 1.0))  # grows with training
        >>> strategy.name
        'LogitMSE'
        >>> student, teacher = (Output(torch.full((4, 2, 7), value), {}) for value in (1.0, 3.0))
        >>> strategy.loss(Step(None, student, teacher, None, 0.5), None).item()
        4.0
    """

    needs_teacher: bool = True
    """Whether `loss` reads `step.teacher`. Checked before training starts."""

    needs_classes: bool = False
    """Whether `loss` reads one class a sample from `step.target`, which mixed samples do not have. Checked, too."""

    def __init__(self, weight: float | Schedule = 1.0, name: str | None = None) -> None:
        """Creates the strategy.

        Args:
            weight: Multiplies the term; a number, or a schedule of training progress.
            name: Names the term in logs and checkpoints. Defaults to the class name; must differ between strategies.

        Raises:
            ConfigError: If no module can have this name: it holds a dot, or torch has it for itself.
        """
        super().__init__()
        self.weight = weight
        self.name = name or type(self).__name__
        if "." in self.name or hasattr(nn.ModuleDict(), self.name):  # where its adapter is kept
            raise ConfigError(f"{type(self).__name__}.name is {name!r}; give another name, of letters, digits, _ and -")

    @property
    def state_key(self) -> str:
        """Tells two strategies of one class apart in a checkpoint."""
        return f"{type(self).__qualname__}[{self.name}]"

    def build(self, distiller: "Distiller") -> nn.Module | None:
        """Creates the trainable adapter of this term, if it needs one.

        Args:
            distiller: Gives access to `distiller.student`, `distiller.teacher` and `distiller.example_outputs()`,
                the outputs of both networks on one zero sample, for feature names and shapes.

        Returns:
            The adapter, or None.
        """
        return None

    def loss(self, step: Step, adapter: nn.Module | None) -> Tensor:
        """Computes the unweighted loss term.

        Args:
            step: Everything about the current training step.
            adapter: What `build` returned.

        Returns:
            A scalar tensor.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loss(step, adapter)")

    def logs(self) -> dict[str, Any]:
        """Further scalars of the last step to log, by name (for instance a hit rate)."""
        return {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Joins the distiller: Lightning calls this before the optimizer is made."""
        if stage == "fit":
            pl_module.add_strategy(self)  # type: ignore[operator]
