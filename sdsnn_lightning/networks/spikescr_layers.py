"""The parts of SpikeSCR: neurons, layers over time, attention, feed-forward and gated convolution.

Every activation here is `[T, B, C]`, contiguous. The same memory, seen as `[1, C, T, B]`, is a channels-last image: a
convolution over time runs as a `[k, 1]` convolution of that image, and nothing is copied into another order. Linear
layers and norms see the frames of all samples as one batch `[T*B, C]`.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdsnn_lightning.neurons import ATan, Leaky

NeuronKind = Literal["leaky", "relu"]
AttentionOrder = Literal["auto", "scores", "context"]

THRESHOLD = 1.0 - 2.0**-24
"""The float32 number just below 1: `Leaky` fires above its threshold, the paper's neuron fires at 1 and above. The
difference matters, because an attention output `count / sqrt(16)` reaches 1 exactly."""


def make_neuron(kind: NeuronKind, tau: float = 2.0) -> nn.Module:
    """Makes one layer of SpikeSCR's neurons, or of those of its analogue twin.

    The neuron charges, fires and resets within one step::

        v[t] = (1 - 1/tau) * (1 - s[t-1]) * v[t-1] + current[t];  s[t] = 1 if v[t] >= 1 else 0

    with no gradient through the reset, and `ds/dv = (5/2) / (1 + (pi/2 * 5 * (v - 1))^2)`. In snnTorch's words that is
    a *delayed* reset to zero: what it calls `reset_delay=False` gives the same spikes, but sends the gradient of the
    membrane through the spike as well.

    Args:
        kind: `leaky`, or `relu` for the twin without spikes.
        tau: Membrane time constant in steps, above 1.

    Returns:
        A module from current `[T, B, C]` to spikes (or rectified currents) of that shape.
    """
    if kind == "relu":
        return nn.ReLU()
    return Leaky(1 - 1 / tau, THRESHOLD, spike_grad=ATan(5.0), reset_mechanism="zero")


class TimeConv(nn.Module):
    """A centred convolution over time, `[T, B, C] -> [T, B, O]`; frames before and after the sequence are zero."""

    def __init__(self, fan_in: int, fan_out: int, kernel: int, groups: int = 1, bias: bool = True) -> None:
        """Creates the layer.

        Args:
            fan_in: Channels C of the input.
            fan_out: Channels O of the output.
            kernel: Taps, odd.
            groups: Groups of channels that do not mix.
            bias: Whether to add a bias.
        """
        super().__init__()
        self.conv = nn.Conv2d(fan_in, fan_out, (kernel, 1), padding=(kernel // 2, 0), groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolves every sample along time."""
        # The batch axis first: put last, its stride would hide from torch that the image is channels-last.
        image = x.unsqueeze(0).permute(0, 3, 1, 2)  # [1, C, T, B]
        return self.conv(image).permute(0, 2, 3, 1).squeeze(0)


def normalise(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch norm of the channels of `[T, B, C]`, with statistics over all frames of all samples, padded ones too."""
    return norm(x.flatten(0, 1)).view(x.shape)


class TimeDropout(nn.Module):
    """Dropout that silences a neuron for the whole sample: one mask `[B, C]` a forward pass, shared by all T frames."""

    def __init__(self, p: float) -> None:
        """Creates the layer.

        Args:
            p: Chance that a neuron is silenced; the others are scaled by `1 / (1 - p)`.
        """
        super().__init__()
        self.p = p

    def mask(self, x: Tensor) -> Tensor | None:
        """Draws what to multiply `[T, B, ...]` by, `[B, ...]`; None in evaluation."""
        if not self.training or self.p == 0:
            return None
        return functional.dropout(x.new_ones(x.shape[1:]), self.p)

    def forward(self, x: Tensor) -> Tensor:
        """Masks `[T, B, ...]` in training; does nothing in evaluation."""
        mask = self.mask(x)
        return x if mask is None else x * mask


def fire(neuron: nn.Module, current: Tensor, dropout: TimeDropout) -> Tensor:
    """Spikes of a layer of neurons after dropout, `[T, B, C]`; those of `Leaky` are masked as they are written."""
    if isinstance(neuron, Leaky):
        return neuron(current, dropout.mask(current))
    return dropout(neuron(current))


class Unit(nn.Module):
    """A layer, its batch norm, its neurons and dropout: the only way currents become spikes in SpikeSCR."""

    def __init__(self, layer: nn.Module, channels: int, neuron: nn.Module, dropout: float = 0.0) -> None:
        """Creates the unit.

        Args:
            layer: Maps `[T, B, *]` to `[T, B, channels]`.
            channels: Channels of its output.
            neuron: Of `make_neuron`.
            dropout: Of its spikes.
        """
        super().__init__()
        self.layer = layer
        self.norm = nn.BatchNorm1d(channels)
        self.neuron = neuron
        self.dropout = TimeDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes `[T, B, channels]`."""
        return fire(self.neuron, normalise(self.norm, self.layer(x)), self.dropout)


def rotation(steps: int, frequencies: Tensor) -> Tensor:
    """The rotations of rotary position embedding, `exp(i * t * frequency)`.

    Su et al., "RoFormer", 2021, equation 15: pair `i` of the channels of frame `t` turns by `t * theta^(-2i/d)`.

    Args:
        steps: Number of frames T.
        frequencies: `[d/2]`, radians a frame, float32 or float64.

    Returns:
        Unit complex numbers `[T, 1, 1, d/2]`.
    """
    angle = torch.arange(steps, device=frequencies.device, dtype=frequencies.dtype)[:, None] * frequencies
    return torch.complex(angle.cos(), angle.sin())[:, None, None]


def rotate(x: Tensor, by: Tensor) -> Tensor:
    """Turns neighbouring pairs of channels, (0, 1), (2, 3), ..., of every head.

    Args:
        x: `[T, B, H*d]`, the last axis dense; half precision is computed in float32.
        by: `[T, 1, 1, d/2]`, see `rotation`.

    Returns:
        Rotated `[T, B, H*d]`, float32 or float64.
    """
    pairs = (x if x.dtype == torch.float64 else x.float()).unflatten(-1, (-1, by.shape[-1], 2))
    return torch.view_as_real(torch.view_as_complex(pairs) * by).flatten(2)


def _heads(x: Tensor, heads: int) -> Tensor:
    """`[T, B, H*d]` as `[B*H, T, d]`: a view, which batched matrix products take as it is."""
    return x.reshape(len(x), x.shape[1] * heads, -1).transpose(0, 1)


def attend(q: Tensor, k: Tensor, v: Tensor, context_first: bool) -> Tensor:
    """Attention without softmax, `q k^T v / sqrt(d)`, over time.

    Spikes make every product a count below 2^24, so both orders give the same float32 numbers bit by bit.

    Args:
        q: Queries `[B*H, T, d]`, float32 or float64.
        k: Keys, same shape.
        v: Values, same shape.
        context_first: Multiplies `k^T v` first, `2 T d^2` multiply-accumulates a head in place of `2 T^2 d`.

    Returns:
        `[B*H, T, d]`.
    """
    with torch.autocast(q.device.type, enabled=False):  # counts exceed what half precision can tell apart
        mixed = q @ (k.mT @ v) if context_first else (q @ k.mT) @ v
    return mixed / math.sqrt(q.shape[-1])


class Attention(nn.Module):
    """Spiking self-attention over the frames of a sample, in both directions of time, with rotary positions.

    Queries, keys and values are the spikes of one unit each. Rotated queries and keys are real, so second neurons make
    them spikes again. Keys of padded frames are zero.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        neuron: NeuronKind,
        tau: float,
        dropout: float,
        order: AttentionOrder,
        official_layout: bool,
    ) -> None:
        """Creates the layer.

        Args:
            width: Channels D.
            heads: Heads H.
            neuron: See `make_neuron`.
            tau: See `make_neuron`.
            dropout: Of the attention's and the projection's spikes.
            order: See `SpikeSCR`.
            official_layout: See `SpikeSCR`.
        """
        super().__init__()
        self.heads, self.order, self.official_layout = heads, order, official_layout
        self.query, self.key, self.value = (
            Unit(nn.Linear(width, width), width, make_neuron(neuron, tau)) for _ in range(3)
        )
        self.turned_query, self.turned_key, self.mixed = (make_neuron(neuron, tau) for _ in range(3))
        self.dropout = TimeDropout(dropout)
        self.project = Unit(nn.Linear(width, width), width, make_neuron(neuron, tau), dropout)

    def forward(self, x: Tensor, by: Tensor, keys: Tensor | None) -> Tensor:
        """Attends.

        Args:
            x: Residual `[T, B, D]`.
            by: Rotations `[T, 1, 1, d/2]`.
            keys: 1 on frames whose keys count, else 0, `[T, B, 1]`; None for all.

        Returns:
            Spikes `[T, B, D]`.
        """
        q, k = rotate(self.query(x), by), rotate(self.key(x), by)
        v = _heads(self.value(x).to(q.dtype), self.heads)
        if self.official_layout:
            q, k = self._scrambled(q, self.turned_query), self._scrambled(k, self.turned_key)
            if keys is not None:
                k = k * keys.transpose(0, 1).repeat_interleave(self.heads, 0)
        else:
            k = self.turned_key(k)
            q, k = _heads(self.turned_query(q), self.heads), _heads(k if keys is None else k * keys, self.heads)
        cheaper = self.training and q.shape[-1] < len(x)
        first = self.order == "context" or (self.order == "auto" and cheaper)
        mixed = attend(q, k, v, first).transpose(0, 1).reshape(x.shape)
        return self.project(fire(self.mixed, mixed, self.dropout))

    def _scrambled(self, x: Tensor, neuron: nn.Module) -> Tensor:
        """A second neuron as the official code runs it: over `[B, H, T, d]` reread, not permuted, as `[T, B, D]`.

        The membrane then walks through frames, heads and samples instead of along time.

        Args:
            x: Rotated queries or keys `[T, B, D]`.
            neuron: Their second neurons.

        Returns:
            Spikes `[B*H, T, d]`.
        """
        lanes = _heads(x, self.heads)
        return neuron(lanes.reshape(x.shape)).reshape(lanes.shape)


class GatedConv(nn.Module):
    """Separable gated convolution: pointwise, depthwise over time, pointwise, then the spiking gated unit."""

    def __init__(self, width: int, kernel: int, neuron: NeuronKind, tau: float, dropout: float) -> None:
        """Creates the layer.

        Args:
            width: Channels D.
            kernel: Taps of the depthwise convolution, odd.
            neuron: See `make_neuron`.
            tau: See `make_neuron`.
            dropout: Of every unit's spikes.
        """
        super().__init__()
        self.enter = Unit(nn.Linear(width, width), width, make_neuron(neuron, tau), dropout)
        depthwise = TimeConv(width, width, kernel, groups=width, bias=False)
        self.spread = Unit(depthwise, width, make_neuron(neuron, tau), dropout)
        self.split = nn.Linear(width, 2 * width)
        self.split_norm = nn.BatchNorm1d(2 * width)
        self.gate_in = make_neuron(neuron, tau)
        self.gate = Unit(nn.Linear(width, width), width, make_neuron(neuron, tau))
        self.neuron = make_neuron(neuron, tau)
        self.dropout = TimeDropout(dropout)

    def forward(self, x: Tensor, frames: Tensor | None) -> Tensor:
        """Convolves and gates.

        Args:
            x: Residual `[T, B, D]`.
            frames: 1 on real frames, else 0, `[T, B, 1]`, keeps padded frames out of the convolution; None for all.

        Returns:
            Spikes `[T, B, D]`.
        """
        x = self.enter(x)
        x = self.spread(x if frames is None else x * frames)
        value, gate = normalise(self.split_norm, self.split(x)).chunk(2, -1)
        return fire(self.neuron, value * self.gate(self.gate_in(gate)), self.dropout)
