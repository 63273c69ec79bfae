"""Adapts any `nn.Module` (timm, torchvision, your own) to the network contract."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.types import Output


class Wrapped(nn.Module):
    """A foreign network that returns logits, with layers tapped by their dotted names.

    The taps are forward hooks that live for one call only: nothing of a batch survives it, and copies, pickles and the
    state dict see the network as it is. A layer that runs more than once in a call is tapped at its last run.

    Attributes:
        inputs: Names of the modalities, in the order of the network's arguments.
    """

    inputs: tuple[str, ...]

    def __init__(
        self,
        num_classes: int,
        network: nn.Module,
        inputs: Sequence[str] = ("frames",),
        taps: Sequence[str] = (),
        readout: Literal["mean", "sum", "last"] = "mean",
        time: Literal["fold", "none"] = "fold",
    ) -> None:
        """Wraps a network.

        Args:
            num_classes: Number of classes K the network must have.
            network: Takes the modalities in order and returns logits.
            inputs: Names of the modalities it consumes.
            taps: Dotted names of layers (`layer4.1.bn2`) whose output becomes a feature of that name.
            readout: What turns logits `[T, B, K]` into class scores: their mean, sum or last over time.
            time: `fold` for a network of single images: T is folded into the batch and unfolded from logits and
                features. `none` passes the modalities as they are, for one that takes `[T, B, ...]` itself, or `[B,
                ...]` from data without time.

        Raises:
            ConfigError: If a tap names no layer of the network.
        """
        super().__init__()
        self.network = network
        self.num_classes = num_classes
        self.inputs = tuple(inputs)
        self.taps = tuple(taps)
        self.reduce = readout
        self.time = time
        layers = [name for name, _ in network.named_modules() if name]
        for tap in self.taps:
            if tap not in layers:
                raise ConfigError(
                    f"taps: {type(network).__name__} has no layer '{tap}'; it has {', '.join(layers) or 'none'}"
                )

    def forward(self, *inputs: Tensor) -> Output:
        """Runs the network.

        Args:
            inputs: The modalities named in `inputs`, each `[T, B, ...]`; `[B, ...]` for data without time.

        Returns:
            Logits `[T, B, K]` or `[B, K]`, and the tapped features `[T, B, ...]` or `[B, ...]`.

        Raises:
            ConfigError: If the network returns something other than a tensor, or another number of classes.
        """
        leading = inputs[0].shape[:2]
        fold = self.time == "fold"
        with self._tapped() as features:
            logits = self.network(*(x.flatten(0, 1) if fold else x for x in inputs))
        if not isinstance(logits, Tensor) or logits.shape[-1] != self.num_classes:
            found = f"{logits.shape[-1]} classes" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise ConfigError(
                f"{type(self.network).__name__} returns {found} where {self.num_classes} classes are needed; "
                "set its own number of classes"
            )
        if not fold:
            return Output(logits, features)
        return Output(logits.unflatten(0, leading), {k: v.unflatten(0, leading) for k, v in features.items()})

    @contextmanager
    def _tapped(self) -> Iterator[dict[str, Tensor]]:
        """Collects the outputs of the tapped layers, by name in the order of `taps`, while the block runs."""
        found: dict[str, Tensor] = {}
        handles: list[RemovableHandle] = []
        try:
            for tap in self.taps:

                def keep(module: nn.Module, args: Any, output: Any, tap: str = tap) -> None:
                    value = output[0] if isinstance(output, tuple | list) else output
                    if not isinstance(value, Tensor):
                        raise ConfigError(f"taps: layer '{tap}' returns a {type(value).__name__}, not a tensor")
                    found[tap] = value.clone()  # many networks overwrite it in place (`out += identity`, ReLU)

                handles.append(self.network.get_submodule(tap).register_forward_hook(keep))
            yield found
        finally:
            for handle in handles:
                handle.remove()

    def readout(self, logits: Tensor) -> Tensor:
        """Class scores `[B, K]` from logits `[T, B, K]`; logits without time are class scores already."""
        if logits.ndim == 2:
            return logits
        if self.reduce == "last":
            return logits[-1]
        return logits.mean(0) if self.reduce == "mean" else logits.sum(0)
