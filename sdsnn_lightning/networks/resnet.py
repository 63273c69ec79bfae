"""ResNet-18 and -34 without spikes, applied to every frame alike: the frame half of hybrid teachers."""

from typing import ClassVar, Literal

from torch import Tensor, nn

from sdsnn_lightning.types import Output

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Basic blocks in the four stages, by depth (He et al., CVPR 2016, table 1)."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut (He et al., figure 2)."""

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
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[N, C_in, H, W]` to `[N, C, H / stride, W / stride]`."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class ResNet(nn.Module):
    """ResNet with basic blocks, one image at a time: no exchange between time steps.

    Modules are named as in torchvision, so that its state dicts load at width 1.

    Features: `layer1` .. `layer4` (`[T, B, C, H, W]`) and `pooled` (`[T, B, 512 width]`).

    Attributes:
        width_out: Number of pooled features, 512 width.
    """

    inputs: ClassVar[tuple[str, ...]] = ("frames",)

    def __init__(self, num_classes: int, channels: int = 3, width: float = 1.0, depth: Literal[18, 34] = 18) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            channels: Channels of an image.
            width: Multiplies the channels of every layer (64 to 512 at width 1).
            depth: 18 or 34 layers.
        """
        super().__init__()
        planes = [max(8, int(c * width)) for c in (64, 128, 256, 512)]
        self.conv1 = nn.Conv2d(channels, planes[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels_in = planes[0]
        for i, (count, out) in enumerate(zip(BLOCKS[depth], planes, strict=True)):
            first = BasicBlock(channels_in, out, 1 if i == 0 else 2)
            stage = nn.Sequential(first, *(BasicBlock(out, out, 1) for _ in range(count - 1)))
            self.add_module(f"layer{i + 1}", stage)
            channels_in = out
        self.width_out = planes[-1]
        self.fc = nn.Linear(self.width_out, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, frames: Tensor) -> Output:
        """Classifies every frame by itself.

        Args:
            frames: Normalised images `[T, B, C, H, W]`.

        Returns:
            Logits `[T, B, K]` and the features.
        """
        leading = frames.shape[:2]
        x = self.maxpool(self.relu(self.bn1(self.conv1(frames.flatten(0, 1)))))  # [T*B, 64, H/4, W/4]
        features = {}
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(name)(x)
            features[name] = x.unflatten(0, leading)
        features["pooled"] = x.mean((-2, -1)).unflatten(0, leading)  # [T, B, 512 width]
        return Output(self.fc(features["pooled"]), features)

    def readout(self, logits: Tensor) -> Tensor:
        """Mean of the logits over time: `[T, B, K]` -> `[B, K]`."""
        return logits.mean(0)
