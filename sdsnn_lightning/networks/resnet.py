"""ResNet-18, -34 and -50 without spikes: frame half of hybrid teachers, and teachers of spiking students."""

from typing import Literal

from torch import Tensor, nn

from sdsnn_lightning.types import Output

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Blocks in the four stages, by depth (He et al., CVPR 2016, table 1)."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut (He et al., figure 2)."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        """Creates the block.

        Args:
            channels_in: Channels of the input.
            channels: Channels of the output.
            stride: Stride of the first convolution and of the shortcut.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(channels_in, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[N, C_in, H, W]` to `[N, C, H / stride, W / stride]`."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride, as in torchvision) and 1x1 convolution to four times the channels."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        """Creates the block.

        Args:
            channels_in: Channels of the input.
            channels: Channels of the 3x3 convolution, a quarter of the output's.
            stride: Stride of the 3x3 convolution and of the shortcut.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(channels_in, 4 * channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[N, C_in, H, W]` to `[N, 4 C, H / stride, W / stride]`."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def shortcut(channels_in: int, channels: int, stride: int) -> nn.Module:
    """A 1x1 convolution with batch norm where the shape changes, else nothing."""
    if stride == 1 and channels_in == channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


class ResNet(nn.Module):
    """ResNet, one image at a time: no exchange between time steps.

    Modules are named as in torchvision, so that its state dicts load at width 1.

    As a teacher of a network on events it sees every event frame (`frames="each"`) or their mean over time alone
    (`frames="mean"`, the choice of the temporal-wise logits distillation of ICML 2025), which knows no order of events.

    Features: `layer1` .. `layer4` (`[T, B, C, H, W]`) and `pooled` (`[T, B, 512 width]`, four times that at depth 50);
    with `frames="mean"` all of them without T.

    Attributes:
        width_out: Number of pooled features.
    """

    inputs: tuple[str, ...] = ("frames",)

    def __init__(
        self,
        num_classes: int,
        channels: int = 3,
        width: float = 1.0,
        depth: Literal[18, 34, 50] = 18,
        frames: Literal["each", "mean"] = "each",
        modality: str = "frames",
        stem: Literal["imagenet", "small"] = "imagenet",
    ) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            channels: Channels of an image; 2 for events.
            width: Multiplies the channels of every layer (64 to 512 at width 1).
            depth: 18, 34 or, with bottlenecks, 50 layers.
            frames: Whether it classifies each frame, or their mean over time.
            modality: Name of the input.
            stem: `imagenet` begins with a 7x7 convolution of stride 2 and a pooling, as the paper; `small`, for images
                of some 32 pixels, with a 3x3 convolution of stride 1.
        """
        super().__init__()
        self.inputs = (modality,)
        self.frames = frames
        block = Bottleneck if depth == 50 else BasicBlock
        planes = [max(8, int(c * width)) for c in (64, 128, 256, 512)]
        small = stem == "small"
        self.conv1 = nn.Conv2d(channels, planes[0], *((3, 1, 1) if small else (7, 2, 3)), bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        channels_in = planes[0]
        for i, (count, out) in enumerate(zip(BLOCKS[depth], planes, strict=True)):
            first = block(channels_in, out, 1 if i == 0 else 2)
            channels_in = out * block.expansion
            stage = nn.Sequential(first, *(block(channels_in, out, 1) for _ in range(count - 1)))
            self.add_module(f"layer{i + 1}", stage)
        self.width_out = channels_in
        self.fc = nn.Linear(self.width_out, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, frames: Tensor) -> Output:
        """Classifies every frame by itself, or the mean of all.

        Args:
            frames: Normalised images or event frames `[T, B, C, H, W]`.

        Returns:
            Logits `[T, B, K]` and the features; without T for the mean.
        """
        if self.frames == "mean":
            frames = frames.mean(0, keepdim=True)
        leading = frames.shape[:2]
        x = self.maxpool(self.relu(self.bn1(self.conv1(frames.flatten(0, 1)))))  # [T*B, 64, H/4, W/4]
        features = {}
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(name)(x)
            features[name] = x.unflatten(0, leading)
        features["pooled"] = x.mean((-2, -1)).unflatten(0, leading)  # [T, B, 512 width]
        output = Output(self.fc(features["pooled"]), features)
        return untimed(output) if self.frames == "mean" else output

    def readout(self, logits: Tensor) -> Tensor:
        """Mean of the logits over time: `[T, B, K]` -> `[B, K]`; logits without time stay as they are."""
        return logits.mean(0) if logits.ndim == 3 else logits


def untimed(output: Output) -> Output:
    """The output of a network that saw a single step, without the axis of time."""
    return Output(output.logits[0], {name: feature[0] for name, feature in output.features.items()})
