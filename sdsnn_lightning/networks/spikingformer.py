"""Spikingformer (Zhou et al., arXiv 2304.11954) with the down-sampling of CML (arXiv 2305.05954)."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks.blocks import NeuronKind, NeuronMaker, PerStep, neuron_maker
from sdsnn_lightning.types import Output

Order = Literal["cml", "spikes"]
ATTENTION_SCALE = 0.125
"""What the authors multiply `Q K^T V` by, at any number of channels a head."""
ATTENTION_THRESHOLD = 0.5
"""Threshold of the neurons behind the attention."""


class SpikeConv(nn.Module):
    """Neurons, a convolution and its batch norm, in this order: what comes in and goes out are currents.

    A pooling that halves the map stands behind the batch norm (`cml`), or between neurons and convolution (`spikes`,
    the first Spikingformer). With `cml` the gradient of the maximum goes to the neuron's strongest current; of equal
    spikes it would go to any.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        make: NeuronMaker | None,
        kernel: int = 1,
        bias: bool = False,
        pool: bool = False,
        order: Order = "cml",
    ) -> None:
        """Creates the layer.

        Args:
            channels_in: Channels of the input.
            channels: Channels of the output.
            make: Makes the neurons; None for a layer that convolves the input itself.
            kernel: Odd side of the convolution kernel.
            bias: Whether the convolution has a bias.
            pool: Whether a 3x3 max pooling halves the map.
            order: Where it stands.
        """
        super().__init__()
        self.lif = None if make is None else make()
        self.conv = nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=bias)
        self.bn = nn.BatchNorm2d(channels)
        halve = nn.MaxPool2d(3, 2, 1)
        self.before: nn.Module = halve if pool and order == "spikes" else nn.Identity()
        self.after: nn.Module = halve if pool and order == "cml" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps currents `[T, B, C_in, H, W]` to currents `[T, B, C, H, W]`, or half of H and W with the pooling."""
        spikes = x if self.lif is None else self.lif(x)
        return self.after(self.bn(self.conv(self.before(spikes.flatten(0, 1))))).unflatten(0, x.shape[:2])


class SpikingAttention(nn.Module):
    """Self-attention of spikes without softmax: `projection(neurons(0.125 Q K^T V))`, Q, K and V binary."""

    def __init__(self, dim: int, heads: int, make: NeuronMaker) -> None:
        """Creates the layer.

        Args:
            dim: Channels.
            heads: Heads; a divisor of `dim`.
            make: Makes the neurons.
        """
        super().__init__()
        self.heads = heads
        self.lif = make()
        for name in ("q", "k", "v"):
            self.add_module(f"{name}_conv", nn.Conv1d(dim, dim, 1, bias=False))
            self.add_module(f"{name}_bn", nn.BatchNorm1d(dim))
            self.add_module(f"{name}_lif", make())
        self.attn_lif = make(threshold=ATTENTION_THRESHOLD)
        self.proj_conv = nn.Conv1d(dim, dim, 1)
        self.proj_bn = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps currents `[T, B, C, H, W]` to currents of the same shape."""
        leading, shape = x.shape[:2], x.shape
        spikes = self.lif(x).flatten(3).flatten(0, 1)  # [T*B, C, N]
        q, k, v = (self._project(name, spikes, leading) for name in ("q", "k", "v"))  # [T, B, heads, C/heads, N]
        tokens, channels = q.shape[-1], q.shape[-2]
        # Sums of products of spikes are exact integers, so the cheaper order gives the same.
        keys = k.transpose(-1, -2)
        mixed = (v @ keys) @ q if channels < tokens else v @ (keys @ q)
        spikes = self.attn_lif(mixed.flatten(2, 3) * ATTENTION_SCALE)
        return self.proj_bn(self.proj_conv(spikes.flatten(0, 1))).view(shape)

    def _project(self, name: str, spikes: Tensor, leading: torch.Size) -> Tensor:
        """Queries, keys or values: spikes `[T, B, heads, C / heads, N]`."""
        current = self.get_submodule(f"{name}_bn")(self.get_submodule(f"{name}_conv")(spikes))
        return self.get_submodule(f"{name}_lif")(current.unflatten(0, leading)).unflatten(2, (self.heads, -1))


class SpikingformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each added to the currents that come in."""

    def __init__(self, dim: int, heads: int, ratio: float, make: NeuronMaker) -> None:
        """Creates the block.

        Args:
            dim: Channels.
            heads: Heads of the attention.
            ratio: Hidden channels of the perceptron per channel.
            make: Makes the neurons.
        """
        super().__init__()
        hidden = int(dim * ratio)
        self.attn = SpikingAttention(dim, heads, make)
        self.mlp1 = SpikeConv(dim, hidden, make, bias=True)
        self.mlp2 = SpikeConv(hidden, dim, make, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps currents `[T, B, C, H, W]` to currents of the same shape."""
        x = x + self.attn(x)
        return x + self.mlp2(self.mlp1(x))


class Spikingformer(PerStep):
    """A spiking vision transformer whose residual connections carry currents: every product is by spikes.

    The default is Spikingformer-2-256 for 128x128 events, BKDSNN's transformer student on CIFAR10-DVS: two blocks of
    256 channels, 16 heads, patches of 16 pixels, `lif` neurons of tau 1.75 (beta 1 - 1/1.75), 2,566,666 parameters at
    10 classes. The authors' logs count 2,568,714: their blocks hold two layer norms that nothing uses, which are not
    here (4 dim parameters a block). Their CIFAR networks (`size=32, patch=4, beta=0.5`, 12 heads of dim 384) and
    ImageNet networks (`size=224`, 8 heads) come from the same arguments; the ImageNet code's map is 14x14.

    The first convolution and the batch norm behind it see events, not spikes. Neurons fire with the surrogate
    `ATan(2)`: ours, since the authors leave it to their library, whose sigmoid has the same peak of 1.

    Features: `embed` and `block1` .. (currents `[T, B, C, H / patch, W / patch]`) and `pooled` (`[T, B, C]`), which the
    classifier sees at every step; its mean over time equals the published classifier on the mean.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 2,
        patch: Literal[2, 4, 8, 16] = 16,
        dim: int = 256,
        depth: int = 2,
        heads: int = 16,
        ratio: float = 4.0,
        width: float = 1.0,
        neuron: NeuronKind = "lif",
        beta: float = 1 - 1 / 1.75,
        downsampling: Order = "cml",
        modality: str = "events",
        temporal_gradient: bool = True,
    ) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            channels: Channels of an event frame.
            patch: Pixels of the input, in each direction, per token; the last of four poolings are used.
            dim: Channels of the blocks at width 1.
            depth: Blocks.
            heads: Heads of the attention.
            ratio: Hidden channels of the perceptrons per channel.
            width: Multiplies `dim`, to the next multiple that heads and the tokenizer can divide.
            neuron: Kind of neuron, see `blocks.make_neuron`.
            beta: Decay of the membranes per step; the authors' is 3/7 on events and 1/2 on images.
            downsampling: `cml`, or `spikes` for the first Spikingformer, which pools spikes.
            modality: Name of the input.
            temporal_gradient: Whether the gradient goes back in time; False is SLTT.

        Raises:
            ConfigError: If dim cannot be divided by heads and 8, or the patch size is not offered.
        """
        super().__init__(modality)
        if patch not in (2, 4, 8, 16):
            raise ConfigError(f"patch is {patch}; take 2, 4, 8 or 16 pixels")
        unit = math.lcm(8, heads)
        if dim % unit:
            raise ConfigError(f"dim is {dim}; {heads} heads and the tokenizer need a multiple of {unit}")
        dim = max(unit, math.ceil(dim * width / unit) * unit)
        make = neuron_maker(neuron, beta, temporal_gradient)
        sizes = (channels, dim // 8, dim // 4, dim // 2, dim, dim)
        self.embed = nn.Sequential()
        pools = patch.bit_length() - 1
        for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
            # CML pools behind layers 0 to 3, the first Spikingformer before layers 1 to 4: the last `pools` of them.
            place = i if downsampling == "cml" else i - 1
            pool = 4 - pools <= place < 4
            self.embed.append(SpikeConv(fan_in, fan_out, make if i else None, 3, pool=pool, order=downsampling))
        self.blocks = nn.ModuleList(SpikingformerBlock(dim, heads, ratio, make) for _ in range(depth))
        self.head = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, events: Tensor) -> Output:
        """Classifies a clip.

        Args:
            events: Event frames `[T, B, C, H, W]`.

        Returns:
            Logits `[T, B, K]` and the features.
        """
        x = self.embed(events)
        features = {"embed": x}
        for i, block in enumerate(self.blocks, 1):
            x = features[f"block{i}"] = block(x)
        features["pooled"] = x.mean((-2, -1))
        return Output(self.head(features["pooled"]), features)

    def load_official(self, state_dict: dict[str, Tensor]) -> None:
        """Loads weights saved by the authors' code (Spikingformer and its CML form).

        Those for events have seen upright frames of 128 pixels: `transpose: true` in `CIFAR10DVS`.

        Args:
            state_dict: Their keys, with or without the `module.` of data parallel training. Their unused layer norms
                are left out.

        Raises:
            RuntimeError: By torch, if keys or shapes do not fit.
        """
        renamed = {}
        for key, value in state_dict.items():
            parts = key.removeprefix("module.").split(".")
            if parts[0] == "block" and parts[2].startswith("norm"):
                continue
            if parts[0] == "patch_embed":  # proj_conv, proj1_bn, ...
                layer, kind = parts[1].removeprefix("proj").split("_")
                parts = ["embed", layer or "0", kind, *parts[2:]]
            elif parts[0] == "block":
                parts[0] = "blocks"
                if parts[2] == "mlp":  # mlp.mlp1_conv, ...
                    parts[2:4] = parts[3].split("_")
            renamed[".".join(parts)] = value
        # Thresholds and the like are buffers of the neurons, which the authors' code does not save.
        constants = {k: v for k, v in self.state_dict().items() if "lif." in k}
        self.load_state_dict({**constants, **renamed})
