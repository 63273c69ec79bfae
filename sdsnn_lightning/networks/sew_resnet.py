"""SEW-ResNet (Fang et al., NeurIPS 2021): residual learning in spiking networks by an element-wise function."""

from typing import Literal

from torch import Tensor, nn

from sdsnn_lightning.networks.blocks import (
    ConvNeuron,
    Join,
    NeuronKind,
    PerStep,
    SEWBlock,
    SEWBottleneck,
    Stem,
    fold,
    join,
    neuron_maker,
    scaled,
)
from sdsnn_lightning.networks.resnet import BLOCKS
from sdsnn_lightning.types import Output

__all__ = ["ConvNeuron", "Join", "SEWBlock", "SEWResNet", "join"]


class SEWResNet(PerStep):
    """SEW-ResNet-18, -34 or -50 with a linear read-out at every step.

    Two things differ from the published ImageNet code, which repeats one still image: the stem runs on every step's
    own input, and the classifier gives logits per step, whose mean over time equals the classifier on the mean. The
    neuron here leaks (`beta`, our default 0.5); the published one is `neuron="if"`. With 3 channels and 1000 classes
    the sizes are those of the ordinary networks: 11,689,512, 21,797,672 and 25,557,032 parameters. 11,180,103 at 7
    classes and depth 18, 0.324 G dense multiply-accumulates per 90x90 step.

    Features: `stem` (spikes before pooling), `layer1` .. `layer4` (integers with `add`, `[T, B, C, H, W]`) and `pooled`
    (`[T, B, 512 width]`, four times that at depth 50).

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
        beta: float = 0.5,
        function: Join = "add",
        neuron: NeuronKind = "leaky",
        modality: str = "frames",
        stem: Stem = "imagenet",
        temporal_gradient: bool = True,
        start_as_identity: bool = False,
    ) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            channels: Channels of an input frame; 2 for events.
            width: Multiplies the channels of every layer (64 to 512 at width 1).
            depth: 18, 34 or, with bottlenecks, 50 layers.
            beta: Decay of the membranes per step; 1 gives the paper's integrate-and-fire neuron.
            function: Element-wise function of the blocks; the paper's best is `add`.
            neuron: Kind of neuron, see `blocks.make_neuron`.
            modality: Name of the input.
            stem: `imagenet` begins with a 7x7 convolution of stride 2 and a pooling, as the paper; `small`, ours for
                images of some 32 pixels, with a 3x3 convolution of stride 1.
            temporal_gradient: Whether the gradient goes back in time; False is SLTT.
            start_as_identity: Whether every block begins as its shortcut, the authors' `zero_init_residual`. Needed by
                `and`, whose blocks otherwise multiply sparse spikes until none is left; with `neuron` `if` (from the
                first step on) or `leaky` (from the second), since `lif` and `plif` halve the current meant to fire.
        """
        super().__init__(modality)
        make = neuron_maker(neuron, beta, temporal_gradient)
        block = SEWBottleneck if depth == 50 else SEWBlock
        planes = [scaled(c, width) for c in (64, 128, 256, 512)]
        small = stem == "small"
        self.stem = ConvNeuron(channels, planes[0], 3 if small else 7, 1 if small else 2, make)
        self.pool: nn.Module = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        channels_in = planes[0]
        for i, (count, out) in enumerate(zip(BLOCKS[depth], planes, strict=True)):
            first = block(channels_in, out, 1 if i == 0 else 2, make, function)
            channels_in = out * block.expansion
            stage = nn.Sequential(first, *(block(channels_in, out, 1, make, function) for _ in range(count - 1)))
            self.add_module(f"layer{i + 1}", stage)
        self.width_out = channels_in
        self.fc = nn.Linear(self.width_out, num_classes)
        for module in self.modules():
            if start_as_identity and isinstance(module, SEWBlock):
                module.start_as_identity()

    def forward(self, frames: Tensor) -> Output:
        """Classifies a clip.

        Args:
            frames: Normalised frames or event frames `[T, B, C, H, W]`.

        Returns:
            Logits `[T, B, K]` and the features.
        """
        spikes = self.stem(frames)
        features = {"stem": spikes}
        x = fold(self.pool, spikes)
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = features[name] = self.get_submodule(name)(x)
        features["pooled"] = x.mean((-2, -1))  # [T, B, 512 width]
        return Output(self.fc(features["pooled"]), features)
