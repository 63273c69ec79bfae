"""Spiking ResNet-18, -19 and -34: residual networks whose shortcuts carry currents, not spikes."""

from typing import Literal

from torch import Tensor, nn

from sdsnn_lightning.networks.blocks import (
    ConvNeuron,
    NeuronKind,
    NeuronMaker,
    PerStep,
    Stem,
    fold,
    neuron_maker,
    scaled,
)
from sdsnn_lightning.networks.resnet import BLOCKS, shortcut
from sdsnn_lightning.types import Output

PLANES = {18: (64, 128, 256, 512), 19: (128, 256, 512), 34: (64, 128, 256, 512)}
"""Channels of the stages, by depth."""


class SpikingBlock(nn.Module):
    """Two 3x3 convolutions; the shortcut joins their current, before the second neuron (Fang et al., figure 2b)."""

    def __init__(self, channels_in: int, channels: int, stride: int, make: NeuronMaker) -> None:
        """Creates the block.

        Args:
            channels_in: Channels of the input.
            channels: Channels of the output.
            stride: Stride of the first convolution and of the shortcut.
            make: Makes the neurons.
        """
        super().__init__()
        self.layer1 = ConvNeuron(channels_in, channels, 3, stride, make)
        self.layer2 = ConvNeuron(channels, channels, 3, 1, make)
        self.shortcut = shortcut(channels_in, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[T, B, C_in, H, W]` to spikes `[T, B, C, H / stride, W / stride]`."""
        return self.layer2.lif(self.layer2.current(self.layer1(x)) + fold(self.shortcut, x))


class SpikingResNet(PerStep):
    """ResNet with spiking neurons in place of ReLU, the usual student of the distillation papers.

    Depth 18 and 34 have the layers of He et al., as the plain network that SEW-ResNet is compared with (Fang et al.,
    NeurIPS 2021); their sizes are the ordinary ones: 11,689,512 and 21,797,672 parameters at 3 channels, 1000 classes.
    Depth 19 is the network of tdBN (Zheng et al., AAAI 2021) as the code of TET (Deng et al., ICLR 2022) has it: 64
    channels in the stem, three stages of 3, 3 and 2 blocks with 128, 256 and 512, and a spiking layer of 256 before the
    classifier; 12,630,858 parameters at 3 channels and 10 classes.

    The papers' neurons differ: `if` for depth 18 and 34, and for 19 `leaky` with beta 0.5 and a triangular surrogate,
    here `ATan(2)`, which has the same peak of 1.

    Features: `stem` and `layer1` .. `layer4` (`layer3` at depth 19; spikes, `[T, B, C, H, W]`), `pooled` (`[T, B, F]`)
    and at depth 19 `hidden` (spikes `[T, B, 256 width]`).
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 2,
        width: float = 1.0,
        depth: Literal[18, 19, 34] = 18,
        neuron: NeuronKind = "leaky",
        beta: float = 0.5,
        modality: str = "events",
        stem: Stem | None = None,
        temporal_gradient: bool = True,
    ) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            channels: Channels of an input frame; 2 for events.
            width: Multiplies the channels of every layer.
            depth: 18, 19 or 34 layers.
            neuron: Kind of neuron, see `blocks.make_neuron`.
            beta: Decay of the membranes per step.
            modality: Name of the input.
            stem: `imagenet` begins with a 7x7 convolution of stride 2 and a pooling, `small` with a 3x3 convolution of
                stride 1. The papers' by default: `small` at depth 19, else `imagenet`.
            temporal_gradient: Whether the gradient goes back in time; False is SLTT.
        """
        super().__init__(modality)
        make = neuron_maker(neuron, beta, temporal_gradient)
        small = (stem or ("small" if depth == 19 else "imagenet")) == "small"
        channels_in = scaled(64, width)
        self.stem = ConvNeuron(channels, channels_in, 3 if small else 7, 1 if small else 2, make)
        self.pool: nn.Module = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        planes = [scaled(c, width) for c in PLANES[depth]]
        counts = (3, 3, 2) if depth == 19 else BLOCKS[depth]
        self.stages = [f"layer{i + 1}" for i in range(len(planes))]
        for i, (count, out) in enumerate(zip(counts, planes, strict=True)):
            first = SpikingBlock(channels_in, out, 1 if i == 0 else 2, make)
            self.add_module(
                f"layer{i + 1}", nn.Sequential(first, *(SpikingBlock(out, out, 1, make) for _ in range(count - 1)))
            )
            channels_in = out
        self.hidden: nn.Linear | None = None
        if depth == 19:
            self.hidden, self.lif = nn.Linear(channels_in, scaled(256, width)), make()
            # PyTorch's default weights leave all these neurons silent on the rates that come in, some 20% of `leaky`
            # and 5% of `plif` at the start, and so all logits equal. Ours make the current as wide as the threshold.
            nn.init.normal_(self.hidden.weight, std=(20 if neuron in ("lif", "plif") else 4) / channels_in**0.5)
            channels_in = self.hidden.out_features
        self.fc = nn.Linear(channels_in, num_classes)

    def forward(self, events: Tensor) -> Output:
        """Classifies a clip.

        Args:
            events: Frames or event frames `[T, B, C, H, W]`.

        Returns:
            Logits `[T, B, K]` and the features.
        """
        features = {"stem": self.stem(events)}
        x = fold(self.pool, features["stem"])
        for name in self.stages:
            x = features[name] = self.get_submodule(name)(x)
        x = features["pooled"] = x.mean((-2, -1))
        if self.hidden is not None:
            x = features["hidden"] = self.lif(self.hidden(x))
        return Output(self.fc(x), features)
