"""Spiking VGGs for event data: VGGSNN of TET and the VGG-11 of DSR and SLTT, with optional delayed skips."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks.blocks import ConvNeuron, NeuronKind, PerStep, fold, neuron_maker, scaled
from sdsnn_lightning.types import Output

FORMS = {
    "tet": ((64, 128), (256, 256), (512, 512), (512, 512)),
    "dsr": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
}
"""Channels of the convolutions; each group is followed by a 2x2 average pooling."""
DSR_GRID = 7
"""DSR and SLTT pool (or repeat) the last map to 7x7 before the classifier."""


def delayed(spikes: Tensor, delay: int) -> Tensor:
    """Spikes `[T, B, ...]` as they arrive `delay` steps later: zeros first, the last `delay` steps never arrive."""
    if delay == 0:
        return spikes
    return torch.cat([torch.zeros_like(spikes[:delay]), spikes[:-delay]])


class DelayedSkip(nn.Module):
    """A connection that leaps over layers and arrives some steps later (TSkips, Malettira et al., arXiv 2411.16711).

    The paper puts skips with explicit delays, forward and backward, into spiking networks and searches for their places
    without training. Its layer equations were not at hand: a 1x1 convolution without bias whose output joins the
    current of the later layer is our form. Only forward skips are offered; a backward one would make the network
    recurrent, and its layers could no longer run over all steps at once.
    """

    def __init__(self, channels_in: int, channels: int, shrink: int, delay: int) -> None:
        """Creates the connection.

        Args:
            channels_in: Channels of the earlier layer.
            channels: Channels of the later one.
            shrink: How many times smaller the later layer's map is.
            delay: Steps until the spikes arrive.
        """
        super().__init__()
        self.delay = delay
        self.pool: nn.Module = nn.AvgPool2d(shrink) if shrink > 1 else nn.Identity()
        self.conv = nn.Conv2d(channels_in, channels, 1, bias=False)

    def forward(self, spikes: Tensor) -> Tensor:
        """Maps spikes `[T, B, C_in, H, W]` to a current `[T, B, C, H / shrink, W / shrink]`."""
        return delayed(self.conv(self.pool(spikes.flatten(0, 1))).unflatten(0, spikes.shape[:2]), self.delay)


class VGGSNN(PerStep):
    """Convolutions with batch norm and neurons, average pooling, and a linear read-out at every step.

    `form="tet"` is VGGSNN of TET (Deng et al., ICLR 2022) on 48x48 events: 9,271,498 parameters at 10 classes. `dsr` is
    the VGG-11 of DSR (Meng et al., CVPR 2022) and SLTT (ICCV 2023): 9,476,298, of which 250,890 stand in the classifier
    on the map brought to 7x7. Both papers' convolutions have biases. DSR ends in a batch norm and neurons, here as in
    SLTT in linear logits.

    TET's neuron is `leaky` with beta 0.5 and a triangular surrogate, and lets the gradient through its reset; ours is
    `ATan(2)`, which has the same peak of 1, and detaches the reset. Average pooling turns spikes into quarters.

    Features: `conv1` .. `conv8` (spikes before pooling, `[T, B, C, H, W]`) and `pooled` (what the classifier sees,
    `[T, B, F]`).
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 2,
        size: int = 48,
        width: float = 1.0,
        form: Literal["tet", "dsr"] = "tet",
        neuron: NeuronKind = "leaky",
        beta: float = 0.5,
        dropout: float = 0.0,
        skips: Sequence[tuple[str, str, int]] = (),
        modality: str = "events",
        temporal_gradient: bool = True,
    ) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            channels: Channels of an event frame.
            size: Side of the square event frames in pixels.
            width: Multiplies the channels of every layer.
            form: Which paper's network.
            neuron: Kind of neuron, see `blocks.make_neuron`.
            beta: Decay of the membranes per step.
            dropout: Of every layer's spikes, one mask a sample for all steps; DSR's code takes 0.1, TET's none.
            skips: TSkips: connections `(from, to, delay)` between layers by their feature names, `to` after `from`,
                delay in steps, 0 for none.
            modality: Name of the input.
            temporal_gradient: Whether the gradient goes back in time; False is SLTT.

        Raises:
            ConfigError: If a skip names no layer, does not lead forward, has a negative delay or joins the same two
                layers as another, or the frames are too small.
        """
        super().__init__(modality)
        groups = FORMS[form]
        if size < 2 ** len(groups):
            raise ConfigError(f"size is {size}; {len(groups)} poolings of form: {form} need {2 ** len(groups)} or more")
        make = neuron_maker(neuron, beta, temporal_gradient)
        self.layers: list[tuple[str, bool]] = []  # names in order, and whether a pooling follows
        shapes: dict[str, tuple[int, int]] = {}  # channels and side of every layer's spikes
        self.pool = nn.AvgPool2d(2)
        for group in groups:
            for i, out in enumerate((scaled(c, width) for c in group), 1):
                name = f"conv{len(self.layers) + 1}"
                self.add_module(name, ConvNeuron(channels, out, 3, 1, make, bias=True))
                self.layers.append((name, i == len(group)))
                shapes[name] = (out, size)
                channels = out
            size //= 2
        self.skips = nn.ModuleDict()
        self._sources: dict[str, list[str]] = {}  # sources of the skips into each layer
        for source, target, delay in skips:
            self._add_skip(source, target, delay, shapes)
        self.dropout = nn.Dropout(dropout)
        self.grid: nn.Module = nn.Identity()
        if form == "dsr":
            self.grid, size = nn.AdaptiveAvgPool2d(DSR_GRID), DSR_GRID
        self.fc = nn.Linear(channels * size * size, num_classes)

    def _add_skip(self, source: str, target: str, delay: int, shapes: dict[str, tuple[int, int]]) -> None:
        names = list(shapes)
        for name in (source, target):
            if name not in shapes:
                raise ConfigError(f"skips: there is no layer '{name}'; there are {', '.join(names)}")
        if names.index(source) >= names.index(target):
            raise ConfigError(f"skips: {source} to {target} does not lead forward; swap them or take a later layer")
        if delay < 0:
            raise ConfigError(f"skips: {source} to {target} has delay {delay}; take 0 or more steps")
        if source in self._sources.get(target, ()):
            raise ConfigError(f"skips: {source} to {target} stands there twice; keep one of them")
        (channels_in, side), (channels, end) = shapes[source], shapes[target]
        self.skips[f"{source}_{target}"] = DelayedSkip(channels_in, channels, side // end, delay)
        self._sources.setdefault(target, []).append(source)

    def forward(self, events: Tensor) -> Output:
        """Classifies a clip.

        Args:
            events: Event frames `[T, B, C, H, W]`.

        Returns:
            Logits `[T, B, K]` and the features.
        """
        features: dict[str, Tensor] = {}
        x = events
        for name, pooled in self.layers:
            layer = self.get_submodule(name)
            assert isinstance(layer, ConvNeuron)
            current = layer.current(x)
            for source in self._sources.get(name, ()):
                current = current + self.skips[f"{source}_{name}"](features[source])
            x = features[name] = layer.lif(current)
            if self.training and self.dropout.p > 0:
                x = x * self.dropout(torch.ones_like(x[0]))
            if pooled:
                x = fold(self.pool, x)
        features["pooled"] = fold(self.grid, x).flatten(2)
        return Output(self.fc(features["pooled"]), features)
