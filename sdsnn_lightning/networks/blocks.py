"""What the spiking networks for images and events share: neurons by name, convolutions with neurons, SEW blocks."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.neurons import PLIF, ATan, Leaky, SpatialLeaky
from sdsnn_lightning.neurons.plif import just_below

NeuronKind = Literal["leaky", "lif", "plif", "if"]
Join = Literal["add", "and", "iand"]
Stem = Literal["imagenet", "small"]
NeuronMaker = Callable[..., nn.Module]
"""Makes one layer of neurons; takes the threshold, 1 by default."""


def make_neuron(
    kind: NeuronKind, beta: float = 0.5, temporal_gradient: bool = True, threshold: float = 1.0
) -> nn.Module:
    """Makes one layer of neurons with a reset to zero, no gradient through it, and the surrogate `ATan(2)`.

    Args:
        kind: `leaky` is this package's `Leaky`, whose current is not scaled. `lif` and `plif` scale it by `1 - beta`,
            as the neurons of SEW-ResNet on event data and of Spikingformer do; `plif` also learns its beta. `if` is
            the integrate-and-fire neuron of SEW-ResNet on ImageNet, `beta = 1`. All but `leaky` fire at the threshold
            too.
        beta: Decay of the membrane per step, `1 - 1 / tau`; that to begin with for `plif`. Without effect on `if`.
        temporal_gradient: Whether the gradient goes back in time; False is SLTT, see `neurons.SpatialLeaky`.
        threshold: Membrane at which a neuron fires.

    Returns:
        A module from currents `[T, B, ...]` to spikes.

    Raises:
        ConfigError: If the kind is unknown, or beta of `lif` or `plif` is not within 0 and 1.
    """
    if kind in ("lif", "plif"):
        if not 0 < beta < 1:
            raise ConfigError(f"beta is {beta}; neuron: {kind} needs one between 0 and 1 (0.5 is tau = 2)")
        return PLIF(1 / (1 - beta), threshold, learn=kind == "plif", temporal_gradient=temporal_gradient)
    if kind not in ("leaky", "if"):
        raise ConfigError(f"neuron: {kind} is unknown; take leaky, lif, plif or if")
    if kind == "if":
        beta, threshold = 1.0, just_below(threshold)
    if temporal_gradient:
        return Leaky(beta=beta, threshold=threshold, spike_grad=ATan(2.0), reset_mechanism="zero", reset_delay=True)
    return SpatialLeaky(
        beta=beta, threshold=threshold, spike_grad=ATan(2.0), reset_mechanism="zero", temporal_gradient=False
    )


def neuron_maker(kind: NeuronKind, beta: float = 0.5, temporal_gradient: bool = True) -> NeuronMaker:
    """`make_neuron` with everything but the threshold fixed."""
    return partial(make_neuron, kind, beta, temporal_gradient)


def scaled(channels: int, width: float) -> int:
    """Channels of a layer at a width multiplier, at least 8."""
    return max(8, int(channels * width))


def fold(module: nn.Module, x: Tensor) -> Tensor:
    """Runs a layer without state on `[T, B, ...]`, time folded into the batch."""
    return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def join(spikes: Tensor, identity: Tensor, function: Join) -> Tensor:
    """The element-wise function g of a SEW block (Fang et al., NeurIPS 2021, table 1).

    Args:
        spikes: Output A of the block's residual path, any shape.
        identity: Output S of the shortcut, the same shape.
        function: `add` is A + S, `and` is A * S, `iand` is (1 - A) * S.

    Returns:
        The block's output; binary for `and` and `iand` on binary inputs, small integers for `add`.
    """
    if function == "add":
        return spikes + identity
    return spikes * identity if function == "and" else (1.0 - spikes) * identity


class PerStep(nn.Module):
    """Base of networks of one modality that give logits at every step.

    Attributes:
        inputs: The one modality, in the tuple that the `Network` contract asks for.
    """

    inputs: tuple[str, ...] = ("events",)

    def __init__(self, modality: str = "events") -> None:
        """Names the input.

        Args:
            modality: Of the data's modalities, the one the network sees.
        """
        super().__init__()
        self.inputs = (modality,)

    def readout(self, logits: Tensor) -> Tensor:
        """Mean of the logits over time: `[T, B, K]` -> `[B, K]`; logits without time stay as they are."""
        return logits.mean(0) if logits.ndim == 3 else logits


class ConvNeuron(nn.Module):
    """Convolution, batch norm over time and batch together, and a spiking neuron."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: int,
        stride: int,
        neuron: float | NeuronMaker,
        bias: bool = False,
    ) -> None:
        """Creates the layer.

        Args:
            channels_in: Channels of the input.
            channels: Channels of the output.
            kernel: Odd side of the convolution kernel.
            stride: Stride of the convolution.
            neuron: Makes the neurons; or the decay per step in [0, 1] of plain `leaky` ones, of which 1 integrates
                without leak.
            bias: Whether the convolution has a bias, which the batch norm makes superfluous.
        """
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=bias)
        self.bn = nn.BatchNorm2d(channels)
        self.lif = neuron() if callable(neuron) else make_neuron("leaky", neuron)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[T, B, C_in, H, W]` to spikes `[T, B, C, H / stride, W / stride]`."""
        return self.lif(self.current(x))

    def current(self, x: Tensor) -> Tensor:
        """What enters the neurons, the same shape as the spikes."""
        return self.bn(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])


class SEWBlock(nn.Module):
    """Basic block with the neuron before the element-wise function (Fang et al., NeurIPS 2021, figure 2c).

    A shortcut that changes the shape has its own convolution, batch norm and neuron, as in the authors' code.
    """

    expansion = 1
    """Channels of the output per channel of the block."""

    def __init__(
        self, channels_in: int, channels: int, stride: int, neuron: float | NeuronMaker, function: Join
    ) -> None:
        """Creates the block.

        Args:
            channels_in: Channels of the input.
            channels: Channels of the block.
            stride: Stride of its 3x3 convolution, the first of two, and of the shortcut.
            neuron: Makes the neurons, or their decay; see `ConvNeuron`.
            function: How spikes and shortcut are joined.
        """
        super().__init__()
        self.function: Join = function
        last = self._add_layers(channels_in, channels, stride, neuron)
        self.last = last
        self.shortcut: nn.Module = nn.Identity()
        channels_out = channels * self.expansion
        if stride != 1 or channels_in != channels_out:
            self.shortcut = ConvNeuron(channels_in, channels_out, 1, stride, neuron)

    def _add_layers(self, channels_in: int, channels: int, stride: int, neuron: float | NeuronMaker) -> int:
        """Adds `layer1` to the last layer of the residual path, and returns the number of that."""
        self.layer1 = ConvNeuron(channels_in, channels, 3, stride, neuron)
        self.layer2 = ConvNeuron(channels, channels, 3, 1, neuron)
        return 2

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[T, B, C_in, H, W]` to integers `[T, B, expansion * C, H / stride, W / stride]`."""
        y = x
        for i in range(1, self.last + 1):
            y = self.get_submodule(f"layer{i}")(y)
        return join(y, self.shortcut(x), self.function)

    def start_as_identity(self) -> None:
        """Makes the residual path silent (always firing for `and`), so that the block begins as its shortcut.

        The authors' `zero_init_residual`: the last batch norm's weight is 0, and for `and` its bias is 1.
        """
        norm = self.get_submodule(f"layer{self.last}.bn")
        nn.init.zeros_(norm.get_parameter("weight"))
        if self.function == "and":
            nn.init.ones_(norm.get_parameter("bias"))


class SEWBottleneck(SEWBlock):
    """The block of SEW-ResNet-50: 1x1, 3x3 (with the stride) and 1x1 to four times the channels, neurons after each."""

    expansion = 4

    def _add_layers(self, channels_in: int, channels: int, stride: int, neuron: float | NeuronMaker) -> int:
        self.layer1 = ConvNeuron(channels_in, channels, 1, 1, neuron)
        self.layer2 = ConvNeuron(channels, channels, 3, stride, neuron)
        self.layer3 = ConvNeuron(channels, 4 * channels, 1, 1, neuron)
        return 3
