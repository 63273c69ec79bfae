"""SEW-ResNet (Fang et al., NeurIPS 2021): residual learning in spiking networks by an element-wise function."""

from typing import ClassVar, Literal

from torch import Tensor, nn

from sdsnn_lightning.networks.resnet import BLOCKS
from sdsnn_lightning.neurons import ATan, Leaky
from sdsnn_lightning.types import Output

Join = Literal["add", "and", "iand"]


def join(spikes: Tensor, identity: Tensor, function: Join) -> Tensor:
    """The element-wise function g of a SEW block (Fang et al., table 1).

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


class ConvNeuron(nn.Module):
    """Convolution, batch norm over time and batch together, and a spiking neuron."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, beta: float) -> None:
        """Creates the layer.

        Args:
            channels_in: Channels of the input.
            channels: Channels of the output.
            kernel: Odd side of the convolution kernel.
            stride: Stride of the convolution.
            beta: Decay of the membrane per step in [0, 1]; 1 integrates without leak.
        """
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.lif = Leaky(beta=beta, threshold=1.0, spike_grad=ATan(2.0), reset_mechanism="zero", reset_delay=True)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[T, B, C_in, H, W]` to spikes `[T, B, C, H / stride, W / stride]`."""
        return self.lif(self.bn(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2]))


class SEWBlock(nn.Module):
    """Basic block with the neuron before the element-wise function (Fang et al., figure 2c).

    A shortcut that changes the shape has its own convolution, batch norm and neuron, as in the authors' code.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, beta: float, function: Join) -> None:
        """Creates the block.

        Args:
            channels_in: Channels of the input.
            channels: Channels of the output.
            stride: Stride of the first convolution and of the shortcut.
            beta: Decay of the membrane per step.
            function: How spikes and shortcut are joined.
        """
        super().__init__()
        self.function: Join = function
        self.layer1 = ConvNeuron(channels_in, channels, 3, stride, beta)
        self.layer2 = ConvNeuron(channels, channels, 3, 1, beta)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = ConvNeuron(channels_in, channels, 1, stride, beta)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[T, B, C_in, H, W]` to integers `[T, B, C, H / stride, W / stride]`."""
        return join(self.layer2(self.layer1(x)), self.shortcut(x), self.function)


class SEWResNet(nn.Module):
    """SEW-ResNet-18 or -34 with a linear read-out at every step.

    Two things differ from the published ImageNet code, which repeats one still image: the stem runs on every step's
    own input, and the classifier gives logits per step, whose mean over time equals the classifier on the mean. The
    neuron here leaks (`beta`, our default 0.5); the published one is `beta=1`. 11,180,103 parameters at width 1 and
    7 classes, 0.324 G dense multiply-accumulates per 90x90 step.

    Features: `stem` (spikes before pooling), `layer1` .. `layer4` (integers with `add`, `[T, B, C, H, W]`) and `pooled`
    (`[T, B, 512 width]`).

    Attributes:
        width_out: Number of pooled features, 512 width.
    """

    inputs: ClassVar[tuple[str, ...]] = ("frames",)

    def __init__(
        self,
        num_classes: int,
        channels: int = 3,
        width: float = 1.0,
        depth: Literal[18, 34] = 18,
        beta: float = 0.5,
        function: Join = "add",
    ) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            channels: Channels of an input frame.
            width: Multiplies the channels of every layer (64 to 512 at width 1).
            depth: 18 or 34 layers.
            beta: Decay of the membranes per step; 1 gives the paper's integrate-and-fire neuron.
            function: Element-wise function of the blocks; the paper's best is `add`.
        """
        super().__init__()
        planes = [max(8, int(c * width)) for c in (64, 128, 256, 512)]
        self.stem = ConvNeuron(channels, planes[0], 7, 2, beta)
        self.pool = nn.MaxPool2d(3, 2, 1)
        channels_in = planes[0]
        for i, (count, out) in enumerate(zip(BLOCKS[depth], planes, strict=True)):
            first = SEWBlock(channels_in, out, 1 if i == 0 else 2, beta, function)
            stage = nn.Sequential(first, *(SEWBlock(out, out, 1, beta, function) for _ in range(count - 1)))
            self.add_module(f"layer{i + 1}", stage)
            channels_in = out
        self.width_out = planes[-1]
        self.fc = nn.Linear(self.width_out, num_classes)

    def forward(self, frames: Tensor) -> Output:
        """Classifies a clip.

        Args:
            frames: Normalised frames or event frames `[T, B, C, H, W]`.

        Returns:
            Logits `[T, B, K]` and the features.
        """
        spikes = self.stem(frames)
        features = {"stem": spikes}
        x = self.pool(spikes.flatten(0, 1)).unflatten(0, frames.shape[:2])
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = features[name] = self.get_submodule(name)(x)
        features["pooled"] = x.mean((-2, -1))  # [T, B, 512 width]
        return Output(self.fc(features["pooled"]), features)

    def readout(self, logits: Tensor) -> Tensor:
        """Mean of the logits over time: `[T, B, K]` -> `[B, K]`."""
        return logits.mean(0)
