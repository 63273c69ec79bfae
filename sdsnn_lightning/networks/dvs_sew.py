"""The wide 7-block SEW network for CIFAR10-DVS (Fang et al., NeurIPS 2021), and its twin without spikes."""

from typing import Literal

from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks.blocks import (
    ConvNeuron,
    Join,
    NeuronKind,
    NeuronMaker,
    PerStep,
    SEWBlock,
    fold,
    neuron_maker,
    scaled,
)
from sdsnn_lightning.networks.resnet import untimed
from sdsnn_lightning.types import Output

CHANNELS = (64, 64, 64, 64, 128, 128, 128)
"""Channels of the seven blocks."""


class SEWDVS(PerStep):
    """Seven SEW blocks, a 2x2 max pooling after each, and a 1x1 convolution with neurons where the channels change.

    Student, and spiking teacher, of BKDSNN (Xu et al., ECCV 2024) on CIFAR10-DVS. The defaults are the authors' code:
    PLIF neurons from tau 2, `add`, 128x128 events, 1,192,218 parameters at 10 classes. The classifier gives logits per
    step, whose mean over time equals the published classifier on the mean feature. Convolutions start from Kaiming's
    normal distribution, as the authors' ImageNet networks; their code for events leaves them to PyTorch.

    Below 128 pixels the map is one pixel before the last pooling, and the poolings then left are skipped: ours.

    Features: `up1` and `up2` (spikes of the two 1x1 convolutions), `block1` .. `block7` (before their pooling, each
    `[T, B, C, H, W]`, integers with `add`) and `pooled` (`[T, B, F]`, what the classifier sees). By the numbers that
    BKDSNN's code gives its layers, `up1` is 0, `up2` 9, `block7` 14, `pooled` 16 (and 15, with its axes).
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 2,
        size: int = 128,
        width: float = 1.0,
        function: Join = "add",
        neuron: NeuronKind = "plif",
        beta: float = 0.5,
        modality: str = "events",
        temporal_gradient: bool = True,
    ) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            channels: Channels of an event frame.
            size: Side of the square event frames in pixels.
            width: Multiplies the channels of every layer (64 and 128 at width 1).
            function: Element-wise function of the blocks.
            neuron: Kind of neuron, see `blocks.make_neuron`.
            beta: Decay of the membranes per step, of `plif` to begin with; 0.5 is the paper's tau 2.
            modality: Name of the input.
            temporal_gradient: Whether the gradient goes back in time; False is SLTT.

        Raises:
            ConfigError: If the size is not at least 1.
        """
        super().__init__(modality)
        self._build(num_classes, channels, size, width, function, neuron_maker(neuron, beta, temporal_gradient), True)

    def _build(
        self, num_classes: int, channels: int, size: int, width: float, function: Join, make: NeuronMaker, spiking: bool
    ) -> None:
        """Adds the layers."""
        if size < 1:
            raise ConfigError(f"size is {size}; give the side of the event frames in pixels (128 for a DVS128)")
        self.stages: list[tuple[str, bool]] = []  # names in order, and whether a pooling follows
        self.pool = nn.MaxPool2d(2)
        for i, out in enumerate((scaled(c, width) for c in CHANNELS), 1):
            if out != channels:
                name = f"up{1 + sum(stage.startswith('up') for stage, _ in self.stages)}"
                up = ConvNeuron(channels, out, 1, 1, make)
                if not spiking:
                    up.lif = nn.Identity()
                self.add_module(name, up)
                self.stages.append((name, False))
            self.add_module(f"block{i}", SEWBlock(out, out, 1, make, function))
            self.stages.append((f"block{i}", size > 1))
            channels, size = out, max(1, size // 2)
        self.fc = nn.Linear(channels * size * size, num_classes)

    def forward(self, events: Tensor) -> Output:
        """Classifies a clip.

        Args:
            events: Event frames `[T, B, C, H, W]`, counts in the paper.

        Returns:
            Logits `[T, B, K]` and the features.
        """
        features, x = {}, events
        for name, pooled in self.stages:
            x = features[name] = self.get_submodule(name)(x)
            if pooled:
                x = fold(self.pool, x)
        features["pooled"] = x.flatten(2)
        return Output(self.fc(features["pooled"]), features)

    def load_official(self, state_dict: dict[str, Tensor]) -> None:
        """Loads weights saved by the authors' code (their `cifar10dvs` network with `neuron="plif"`).

        They have seen upright frames of 128 pixels: `transpose: true` in `CIFAR10DVS`.

        Args:
            state_dict: Their keys, with or without the `module.` of data parallel training.

        Raises:
            RuntimeError: By torch, if keys or shapes do not fit.
        """
        prefixes, index = {"out": "fc"}, 0
        for name, pooled in self.stages:
            layers = {"": name} if name.startswith("up") else {f"conv.{i}.": f"{name}.layer{i + 1}" for i in range(2)}
            for inner, ours in layers.items():
                theirs = f"conv.{index}.{inner}"
                prefixes[f"{theirs}0.module.0"] = f"{ours}.conv"
                prefixes[f"{theirs}0.module.1"] = f"{ours}.bn"
                prefixes[f"{theirs}1"] = f"{ours}.lif"
            index += 2 if pooled else 1
        renamed = {}
        for key, value in state_dict.items():
            module, _, leaf = key.removeprefix("module.").rpartition(".")
            renamed[f"{prefixes.get(module, module)}.{leaf}"] = value
        # Thresholds are buffers of snntorch's Leaky, which the authors' code does not save.
        constants = {k: v for k, v in self.state_dict().items() if ".lif." in k and not k.endswith(".w")}
        self.load_state_dict({**constants, **renamed})


class SEWDVSTwin(SEWDVS):
    """The same network with ReLU in the blocks and nothing after the 1x1 convolutions: a teacher without spikes.

    It stands unused in BKDSNN's repository, whose scripts take a spiking teacher; 1,192,202 parameters, 16 fewer than
    there are PLIF neurons. As there, it sees each frame by itself and averages over time.

    Features: as in `SEWDVS`, but real and not negative in the blocks; with `frames="mean"` all of them without T.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 2,
        size: int = 128,
        width: float = 1.0,
        function: Join = "add",
        frames: Literal["each", "mean"] = "each",
        modality: str = "events",
    ) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            channels: Channels of an event frame.
            size: Side of the square event frames in pixels.
            width: Multiplies the channels of every layer.
            function: Element-wise function of the blocks.
            frames: Whether it classifies each frame, or their mean over time.
            modality: Name of the input.

        Raises:
            ConfigError: If the size is not at least 1.
        """
        PerStep.__init__(self, modality)
        self.frames = frames
        self._build(num_classes, channels, size, width, function, nn.ReLU, False)

    def forward(self, events: Tensor) -> Output:
        """Classifies each frame, or the mean of all.

        Args:
            events: Event frames `[T, B, C, H, W]`.

        Returns:
            Logits `[T, B, K]` and the features; without T for the mean.
        """
        if self.frames == "mean":
            return untimed(super().forward(events.mean(0, keepdim=True)))
        return super().forward(events)
