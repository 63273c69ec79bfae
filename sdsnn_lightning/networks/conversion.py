"""Networks with quantised activations from spiking ones, and back: by deep copies, never in place."""

import copy
from collections.abc import Callable

import snntorch
from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.metrics.spikes import spiking_layers
from sdsnn_lightning.neurons.quantised import IntegrateAndFire, QuantisedActivation
from sdsnn_lightning.types import Output


class _WithCurrent(nn.Module):
    """Stands for a neuron that also returns its membrane: activation, and the current itself."""

    def __init__(self, activation: QuantisedActivation) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, current: Tensor) -> tuple[Tensor, Tensor]:
        return self.activation(current), current


def quantised_twin(network: nn.Module, levels: int = 4) -> nn.Module:
    """Copies a spiking network and puts a quantised activation in the place of every neuron.

    The twin treats every time step by itself where nothing but neurons holds state. An `IntegrateAndFire` becomes an
    activation with its trained ceiling, of which it is the exact counterpart. A `Leaky` becomes one whose ceiling is
    the threshold and whose highest value is one spike: batch norm before it and weights behind it make up for a trained
    ceiling. Weights keep their names, so `copy_weights` brings them back.

    Args:
        network: Left as it is.
        levels: L of the activations.

    Returns:
        The twin, with parameters of its own.

    Raises:
        ConfigError: If the network has no spiking neurons.
    """
    twin = copy.deepcopy(network)
    neurons = {name: layer for name, layer in twin.named_modules() if isinstance(layer, IntegrateAndFire)}
    inner = {f"{name}.neuron" if name else "neuron" for name in neurons}
    neurons |= {name: layer for name, layer in spiking_layers(twin).items() if name not in inner}  # type: ignore[misc]
    if not neurons:
        raise ConfigError(f"{type(network).__name__} has no spiking neurons to replace by quantised activations")
    for name, layer in neurons.items():
        _replace(twin, name, _activation(layer, levels))
    return twin


def _activation(layer: nn.Module, levels: int) -> nn.Module:
    """The activation that stands for one layer of neurons."""
    if isinstance(layer, IntegrateAndFire):
        return QuantisedActivation(levels, layer.ceiling.detach())
    assert isinstance(layer, snntorch.Leaky)
    activation = QuantisedActivation(levels, layer.threshold.detach(), trainable=False, value=1.0)
    return _WithCurrent(activation) if layer.output else activation


def spiking_copy(network: nn.Module) -> nn.Module:
    """Copies a network with quantised activations and puts an `IntegrateAndFire` neuron in the place of each.

    Args:
        network: Takes `[T, B, ...]`; left as it is.

    Returns:
        The spiking network, with parameters of its own and the same weights.

    Raises:
        ConfigError: If the network has no quantised activation with a trained ceiling.
    """
    spiking = copy.deepcopy(network)
    found = {name: layer for name, layer in spiking.named_modules() if isinstance(layer, QuantisedActivation)}
    if not any(isinstance(layer.ceiling, nn.Parameter) for layer in found.values()):
        raise ConfigError(f"{type(network).__name__} has no QuantisedActivation with a trained ceiling to convert")
    for name, layer in found.items():
        _replace(spiking, name, IntegrateAndFire(layer.ceiling.detach()))
    return spiking


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copies every tensor of the source's state into the target's of the same name.

    Args:
        source: Its state names a part of the target's, as that of a twin does.
        target: Changed in place.

    Raises:
        ConfigError: If the target lacks one of the names.
    """
    state, own = source.state_dict(), target.state_dict()
    missing = [key for key in state if key not in own]
    if missing:
        raise ConfigError(f"{type(target).__name__} has no '{missing[0]}', which conversion has to fill")
    target.load_state_dict({**own, **state})


class Converted(nn.Module):
    """Any network of this package with `IntegrateAndFire` neurons in the place of its own, the student of HSD.

    Networks that join spikes by AND or IAND need spikes of value 1: set `ceiling: 1` and take them with care.

    Attributes:
        inputs: Those of the network.
    """

    inputs: tuple[str, ...]

    def __init__(self, num_classes: int, network: Callable[[int], nn.Module], ceiling: float = 8.0) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            network: Makes the network whose neurons are replaced.
            ceiling: Where the trained ceilings start; 8 in HSD's code.

        Raises:
            ConfigError: If the network has no spiking neurons, or needs the membrane of one.
        """
        super().__init__()
        self.network = network if isinstance(network, nn.Module) else network(num_classes)
        self.inputs = tuple(self.network.inputs)  # type: ignore[arg-type]
        layers = spiking_layers(self.network)
        if not layers:
            raise ConfigError(f"{type(self.network).__name__} has no spiking neurons to replace by integrate-and-fire")
        for name, layer in layers.items():
            if getattr(layer, "output", False):
                raise ConfigError(
                    f"{type(self.network).__name__}: layer '{name}' puts out its membrane, which has no quantised "
                    "counterpart; choose another network"
                )
            _replace(self.network, name, IntegrateAndFire(ceiling))

    def forward(self, *inputs: Tensor) -> Output:
        """Runs the network: modalities `[T, B, ...]` to logits and features."""
        return self.network(*inputs)

    def readout(self, logits: Tensor) -> Tensor:
        """The network's own read-out."""
        return self.network.readout(logits)  # type: ignore[operator]


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Sets the submodule of a dotted name."""
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent) if parent else network, last, module)
