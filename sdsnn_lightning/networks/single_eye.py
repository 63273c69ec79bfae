"""Students and teachers for single-eye emotion recognition after MSKD (Wang et al., IJCAI 2024).

The paper's teacher sees events and frames and is part spiking, part not; its student is spiking and sees frames only.
Its layer lists are not public, so what stands here is our reading, built from the two networks it builds on: SEEN and
SEW-ResNet-18.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from sdsnn_lightning.networks.resnet import ResNet
from sdsnn_lightning.networks.seen import ConvStack, seen_neuron
from sdsnn_lightning.networks.sew_resnet import ConvNeuron, SEWResNet
from sdsnn_lightning.types import Output


class SingleEyeStudent(nn.Module):
    """SEEN's stack as a frames-only spiking network: every frame is one time step, everything is trained directly.

    branches -> mix -> LIF -> conv2 -> LIF -> conv3 -> LIF -> fc1 -> LIF -> fc2 -> LIF, whose membrane potential is the
    logits. SEEN's neuron and constants; the attention is that of each step's own frame.

    With 7 classes, 4 steps of 90x90: 6,080,810 parameters and 0.729 G dense multiply-accumulates at width 1; 1,525,530
    and 0.215 G at 0.5; 384,050 and 0.070 G at 0.25. About 15% of the neurons fire in a step before training.

    Features: `spikes1`, `spikes2`, `spikes3` (`[T, B, C, H, W]`) and `hidden` (`[T, B, 256 width]`).
    """

    inputs: ClassVar[tuple[str, ...]] = ("frames",)

    def __init__(
        self, num_classes: int, size: int = 90, channels: int = 3, width: float = 1.0, norm: bool = True
    ) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            size: Side of the square frames in pixels.
            channels: Channels of a frame.
            width: Multiplies the channels of every layer (64, 256, 512 and 256 at width 1).
            norm: Whether batch norm precedes every hidden neuron, scaled to the threshold. Ours: SEEN has none, but
                without it and without SEEN's frame path the hidden layers fire in less than 0.1% of the steps at the
                start, and SGD does not wake them within 40 steps.
        """
        super().__init__()
        self.stack = ConvStack(size, channels, width)
        hidden = max(8, int(256 * width))
        self.fc1 = nn.Linear(self.stack.flat, hidden)
        self.fc2 = nn.Linear(hidden, num_classes)
        sizes = (self.stack.conv1.out_channels, self.stack.conv2.out_channels, self.stack.conv3.out_channels)
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm2d(c) if norm else nn.Identity() for c in sizes)
        self.norm4 = nn.BatchNorm1d(hidden) if norm else nn.Identity()
        if norm:
            # Currents as wide as the threshold make about 15% of the neurons fire (Zheng et al., AAAI 2021, eq 8).
            for layer in (self.norm1, self.norm2, self.norm3, self.norm4):
                nn.init.constant_(layer.get_parameter("weight"), 0.3)
        self.lif1, self.lif2, self.lif3, self.lif4 = (seen_neuron() for _ in range(4))
        self.lif5 = seen_neuron(output=True)

    def forward(self, frames: Tensor) -> Output:
        """Classifies a clip.

        Args:
            frames: Normalised intensity frames `[T, B, C, S, S]`.

        Returns:
            Membrane potentials of the output layer as logits `[T, B, K]`, and the features.
        """
        leading = frames.shape[:2]
        mixed, _ = self.stack.mix(frames.flatten(0, 1))
        spikes1 = self.lif1(self.norm1(mixed).unflatten(0, leading))
        current = self.norm2(self.stack.conv2(spikes1.flatten(0, 1)))
        spikes2 = self.lif2(current.unflatten(0, leading))
        current = self.norm3(self.stack.conv3(spikes2.flatten(0, 1)))
        spikes3 = self.lif3(current.unflatten(0, leading))
        current = self.norm4(self.fc1(spikes3.flatten(0, 1).flatten(1)))
        hidden = self.lif4(current.unflatten(0, leading))
        _, membrane = self.lif5(self.fc2(hidden))
        return Output(membrane, {"spikes1": spikes1, "spikes2": spikes2, "spikes3": spikes3, "hidden": hidden})

    def readout(self, logits: Tensor) -> Tensor:
        """Mean of the output membrane potential over time: `[T, B, K]` -> `[B, K]`."""
        return logits.mean(0)


class PlainStudent(nn.Module):
    """A small spiking network: three strided convolutions with batch norm and neurons, and a linear read-out.

    The last spikes are averaged over a 4x4 grid, not over the whole map: where the eye looks matters. 109,351
    parameters and 0.101 G dense multiply-accumulates with 7 classes and 4 steps of 90x90.

    Features: `spikes1`, `spikes2`, `spikes3` (`[T, B, C, H, W]`) and `pooled` (`[T, B, 16 * 128 width]`).
    """

    inputs: ClassVar[tuple[str, ...]] = ("frames",)

    def __init__(self, num_classes: int, channels: int = 3, width: float = 1.0, beta: float = 0.5) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            channels: Channels of a frame.
            width: Multiplies the channels of every layer (32, 64 and 128 at width 1).
            beta: Decay of the membranes per step.
        """
        super().__init__()
        c1, c2, c3 = (max(8, int(c * width)) for c in (32, 64, 128))
        self.layer1 = ConvNeuron(channels, c1, 5, 2, beta)
        self.layer2 = ConvNeuron(c1, c2, 3, 2, beta)
        self.layer3 = ConvNeuron(c2, c3, 3, 2, beta)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.fc = nn.Linear(16 * c3, num_classes)

    def forward(self, frames: Tensor) -> Output:
        """Maps frames `[T, B, C, S, S]` to logits `[T, B, K]` and the features."""
        spikes1 = self.layer1(frames)
        spikes2 = self.layer2(spikes1)
        spikes3 = self.layer3(spikes2)
        pooled = self.pool(spikes3.flatten(0, 1)).flatten(1).unflatten(0, frames.shape[:2])
        return Output(self.fc(pooled), {"spikes1": spikes1, "spikes2": spikes2, "spikes3": spikes3, "pooled": pooled})

    def readout(self, logits: Tensor) -> Tensor:
        """Mean of the logits over time: `[T, B, K]` -> `[B, K]`."""
        return logits.mean(0)


class SEWStudent(SEWResNet):
    """SEW-ResNet-18 on frames, narrow: a quarter of the channels by default.

    702,999 parameters and 0.095 G dense multiply-accumulates with 7 classes and 4 steps of 90x90; 2,800,679 and 0.343 G
    at width 0.5.
    """

    def __init__(self, num_classes: int, channels: int = 3, width: float = 0.25, beta: float = 0.5) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            channels: Channels of a frame.
            width: Multiplies the channels of every layer (64 to 512 at width 1).
            beta: Decay of the membranes per step.
        """
        super().__init__(num_classes, channels=channels, width=width, beta=beta)


class SingleEyeTeacher(nn.Module):
    """Hybrid teacher: a spiking SEW-ResNet-18 on events and an ordinary ResNet-18 on each frame, fused at every step.

    Features: `frames` and `events` (pooled, `[T, B, 512 width]`) and `fused` (what the classifier sees).
    """

    inputs: ClassVar[tuple[str, ...]] = ("frames", "events")

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        channels: int = 3,
        fusion: Literal["concat", "sum", "gated"] = "concat",
    ) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            width: Multiplies the channels of both branches (64 to 512 at width 1).
            channels: Channels of a frame and of an event frame.
            fusion: How the pooled features of the branches meet at every step: `concat` sets them side by side, `sum`
                adds them, `gated` takes `g * events + (1 - g) * frames` with a learned gate g per feature. Without
                effect where there is one branch.
        """
        super().__init__()
        self.fusion = fusion
        branches: dict[str, ResNet | SEWResNet] = {}
        if "frames" in self.inputs:
            branches["frames"] = ResNet(num_classes, channels, width)
        if "events" in self.inputs:
            branches["events"] = SEWResNet(num_classes, channels, width)
        features = next(iter(branches.values())).width_out
        for branch in branches.values():
            branch.fc = nn.Identity()  # type: ignore[assignment]  # the classifier comes after the fusion
        self.branches = nn.ModuleDict(branches)
        both = len(branches) == 2
        self.gate = nn.Linear(2 * features, features) if both and fusion == "gated" else None
        self.fc = nn.Linear(features * (2 if both and fusion == "concat" else 1), num_classes)

    def forward(self, *inputs: Tensor) -> Output:
        """Classifies a clip.

        Args:
            inputs: The modalities named in `inputs`, each `[T, B, C, H, W]`.

        Returns:
            Logits `[T, B, K]` and the features.
        """
        features: dict[str, Tensor] = {}
        for name, x in zip(self.inputs, inputs, strict=True):
            features[name] = self.branches[name](x).features["pooled"]  # [T, B, 512 width]
        features["fused"] = self._fuse([features[name] for name in self.inputs])
        return Output(self.fc(features["fused"]), features)

    def _fuse(self, pooled: list[Tensor]) -> Tensor:
        """Joins the pooled features `[T, B, F]` of one or two branches."""
        if len(pooled) == 1:
            return pooled[0]
        frames, events = pooled
        both = torch.cat([frames, events], -1)
        if self.fusion == "concat":
            return both
        if self.gate is None:
            return frames + events
        return torch.lerp(frames, events, self.gate(both).sigmoid())

    def readout(self, logits: Tensor) -> Tensor:
        """Mean of the logits over time: `[T, B, K]` -> `[B, K]`."""
        return logits.mean(0)


class EventTeacher(SingleEyeTeacher):
    """The spiking half of the teacher alone: events only."""

    inputs: ClassVar[tuple[str, ...]] = ("events",)


class FrameTeacher(SingleEyeTeacher):
    """The non-spiking half of the teacher alone: frames only."""

    inputs: ClassVar[tuple[str, ...]] = ("frames",)
