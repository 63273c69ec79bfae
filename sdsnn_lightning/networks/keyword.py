"""Two small networks for keyword spotting on log-mel spectrograms: a convolutional teacher and a spiking student."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdsnn_lightning.neurons import ATan, Leaky
from sdsnn_lightning.types import Output

_READOUT_BETA = 0.95


def integrate(current: Tensor, beta: float) -> Tensor:
    """Leaky integration without spikes: `u[t] = beta * u[t-1] + current[t]` from zero.

    Not a `Leaky` whose spikes are ignored, since those would be counted as spikes of the network. In closed form,
    `u[t] = beta^t * sum_{s <= t} beta^-s current[s]`, in float32, which holds for 1,000 steps at beta 0.95.

    Args:
        current: `[T, B, K]`.
        beta: Decay per step, in (0, 1].

    Returns:
        Membrane `[T, B, K]`, float32.
    """
    decay = beta ** torch.arange(len(current), device=current.device, dtype=torch.float32)[:, None, None]
    return decay * (current.float() / decay).cumsum(0)


class SpikingKeyword(nn.Module):
    """Spiking student: causal dilated convolutions over time, each followed by leaky neurons, and a membrane readout.

    Every layer convolves over past steps only, with dilation 1, 2, 4, ..., so the network could run online. The first
    layer takes the real-valued spectrogram, the others binary spikes. The readout neurons integrate without firing and
    their membrane is the network's logits at every step. Our own design: decay learnt per channel after Fang et al.,
    2021 ("Incorporating Learnable Membrane Time Constant"), convolution over time before the neurons as the delays of
    Hammouamri et al., 2024, made of taps.
    """

    inputs: ClassVar[tuple[str, ...]] = ("audio",)

    def __init__(
        self,
        num_classes: int,
        mels: int = 40,
        hidden: int = 160,
        layers: int = 3,
        kernel: int = 5,
        beta: float = 0.8,
        dropout: float = 0.1,
    ) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            mels: Mel bins of the input.
            hidden: Channels, hence neurons, of every layer.
            layers: Spiking layers.
            kernel: Taps of every convolution over time.
            beta: Initial membrane decay per step; learnt per channel.
            dropout: Chance that a neuron is silenced for a whole training sample.
        """
        super().__init__()
        self.kernel = kernel
        channels = [mels] + [hidden] * layers
        self.convs = nn.ModuleList(
            nn.Conv1d(fan_in, fan_out, kernel, dilation=2**depth, bias=False)
            for depth, (fan_in, fan_out) in enumerate(zip(channels, channels[1:], strict=False))
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(layers))
        self.neurons = nn.ModuleList(
            Leaky(torch.full((hidden,), beta), spike_grad=ATan(), learn_beta=True) for _ in range(layers)
        )
        self.dropout = nn.Dropout1d(dropout)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, audio: Tensor) -> Output:
        """Maps log-mel spectrograms `[T, B, mels]` to membrane logits `[T, B, K]`; taps the spikes of every layer."""
        features = {}
        x = audio
        for depth, (conv, norm, neuron) in enumerate(zip(self.convs, self.norms, self.neurons, strict=True)):
            past = (self.kernel - 1) * 2**depth
            current = norm(conv(functional.pad(x.permute(1, 2, 0), (past, 0))))  # [B, hidden, T]
            x = neuron(self.dropout(current).permute(2, 0, 1))  # [T, B, hidden], spikes
            features[f"layer{depth + 1}"] = x
        return Output(integrate(self.head(x), _READOUT_BETA), features)

    def readout(self, logits: Tensor) -> Tensor:
        """Mean membrane over time: `[T, B, K]` -> `[B, K]`."""
        return logits.mean(0)


class KeywordConvNet(nn.Module):
    """Teacher without spikes or time: a small residual 2-D convolutional net over the whole spectrogram.

    Shaped after the residual keyword nets of Tang and Lin, 2018 ("Deep Residual Learning for Small-Footprint Keyword
    Spotting"), with pooling between stages in place of dilation.
    """

    inputs: ClassVar[tuple[str, ...]] = ("audio",)

    def __init__(self, num_classes: int, width: int = 24, dropout: float = 0.2) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            width: Channels of the first stage; doubled in each of the two that follow.
            dropout: Dropout before the linear classifier.
        """
        super().__init__()
        self.stem = _conv(1, width, stride=2)
        self.stages = nn.ModuleList([_Residual(width, 2 * width), _Residual(2 * width, 4 * width)])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, audio: Tensor) -> Output:
        """Maps log-mel spectrograms `[T, B, mels]` to logits `[B, K]`; taps the pooled embedding `[B, 4 * width]`."""
        x = self.stem(audio.permute(1, 2, 0).unsqueeze(1))  # [B, width, mels/2, T/2]
        for stage in self.stages:
            x = stage(x)
        embedding = x.mean((2, 3))
        return Output(self.head(self.dropout(embedding)), {"embedding": embedding})

    def readout(self, logits: Tensor) -> Tensor:
        """The logits `[B, K]` are the class scores."""
        return logits


class _Residual(nn.Module):
    """Halves both axes, then adds a residual pair of 3x3 convolutions."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.down = _conv(fan_in, fan_out, stride=2)
        self.first = _conv(fan_out, fan_out)
        self.second = nn.Sequential(nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return functional.relu(x + self.second(self.first(x)))


def _conv(fan_in: int, fan_out: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(fan_in, fan_out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU()
    )
