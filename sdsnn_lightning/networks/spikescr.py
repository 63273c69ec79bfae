"""SpikeSCR: a spiking transformer with gated convolutions for speech commands.

Wang et al., "Efficient Speech Command Recognition Leveraging Spiking Neural Network and Curriculum Learning-based
Knowledge Distillation", arXiv 2412.12858. The architecture follows the authors' published code. Three things are ours:
padded frames are kept out of every sample's logits, the second query and key neurons run along time (the code's do not,
see `official_layout`), and attention multiplies in the cheaper order while training.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks.spikescr_layers import (
    Attention,
    AttentionOrder,
    GatedConv,
    NeuronKind,
    TimeConv,
    TimeDropout,
    Unit,
    make_neuron,
    rotation,
)
from sdsnn_lightning.types import Output

SIZES: dict[str, dict[str, int]] = {
    "shd": {"width": 128, "heads": 8, "depth": 1, "mlp_ratio": 1},
    "ssc": {"width": 256, "heads": 16, "depth": 2, "mlp_ratio": 4},
    "gsc": {"width": 256, "heads": 16, "depth": 2, "mlp_ratio": 4},
}
"""The paper's sizes by data set, as arguments of `SpikeSCR`; depth 1 is published for `ssc` and `gsc` too."""


class SpikeSCR(nn.Module):
    """Spiking speech-command recogniser, or its analogue twin, from frames `[T, B, C]` to logits `[T, B, K]`.

    An embedding convolution, then blocks that each add four branches of spikes to an integer residual: self-attention,
    feed-forward, separable gated convolution, feed-forward. After L blocks the residual holds integers 0 to 1 + 4L (in
    evaluation; dropout scales spikes in training), and the next linear layer reads those integers.

    With the defaults and in evaluation, the class probabilities of a sample depend neither on the other samples of its
    batch nor on its padding: keys and convolution inputs of padded frames are zero, and so are their logits. Equal
    logits add the same number to every class of `readout`, which cross-entropy and KL divergence, both behind a softmax
    over classes, cannot see. Padding must follow the real frames. Training still pools batch-norm statistics over
    padded frames, as the paper's code does.

    The network looks at the future, so there is no online `step`.

    Attributes:
        inputs: The modalities it consumes: `(modality, "mask")`, or `(modality,)` without `masked`.
    """

    inputs: tuple[str, ...]
    frequencies: Tensor

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 140,
        width: int = 128,
        heads: int = 8,
        depth: int = 1,
        mlp_ratio: int = 1,
        kernel_size: int = 31,
        tau: float = 2.0,
        dropout: float = 0.1,
        modality: str = "spikes",
        masked: bool = True,
        mask_padding: bool = True,
        official_layout: bool = False,
        readout: Literal["sum", "mean"] = "sum",
        rotary_theta: float = 10000.0,
        attention_order: AttentionOrder = "auto",
        neuron: NeuronKind = "leaky",
        scale: float = 1.0,
    ) -> None:
        """Creates the network; the defaults are the paper's for SHD.

        Args:
            num_classes: Number of classes K.
            in_channels: Channels C of the input.
            width: Channels D inside.
            heads: Attention heads; `width / heads` must be even.
            depth: Blocks L.
            mlp_ratio: Width of the feed-forward layers' hidden units, in units of `width`.
            kernel_size: Taps of the depthwise convolution, odd.
            tau: Membrane time constant of every neuron in steps; 2 halves the membrane each step.
            dropout: Everywhere, the head's included; a silenced neuron stays so for the whole sample.
            modality: The modality with the frames: `spikes`, `audio`.
            masked: Whether a `mask` of real frames comes along; otherwise all frames are real.
            mask_padding: Whether padded frames are kept out of the logits. Without, only their keys are masked, as in
                the paper's code.
            official_layout: Runs the function of the authors' code bit by bit, defects included: padding is not masked
                (`mask_padding` is ignored), and the second query and key neurons walk through frames, heads and samples
                instead of along time, so that a sample's logits depend on its batch. For their weights only.
            readout: `sum` over time of softmax over classes, the paper's, or the `mean` over time.
            rotary_theta: Base of the rotary position embedding.
            attention_order: `scores` multiplies `q k^T` first, as published; `context` multiplies `k^T v` first, same
                spikes at less cost; `auto` does so in training where cheaper, and counts as published in evaluation.
            neuron: `leaky`, or `relu` for the analogue twin: the same layers with every neuron a rectifier.
            scale: Multiplies `width`, to the nearest that the heads can share; `${width}` in an experiment.

        Raises:
            ConfigError: If an argument is out of its range.
        """
        super().__init__()
        if scale != 1.0:
            width = max(1, round(width * scale / (2 * heads))) * 2 * heads
        _check(width, heads, depth, mlp_ratio, kernel_size, tau, dropout)
        self.inputs = (modality, "mask") if masked else (modality,)
        self.in_channels = in_channels
        self.mask_padding = mask_padding and not official_layout
        self.mode = readout
        self.embed = Unit(TimeConv(in_channels, width, 3), width, make_neuron(neuron, tau), dropout)
        self.blocks = nn.ModuleList(
            _Block(width, heads, mlp_ratio, kernel_size, neuron, tau, dropout, attention_order, official_layout)
            for _ in range(depth)
        )
        self.dropout = TimeDropout(dropout)
        self.head = nn.Linear(width, num_classes, bias=False)
        size = width // heads
        powers = torch.arange(0, size, 2).float() / size
        self.register_buffer("frequencies", 1.0 / rotary_theta**powers, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Xavier-uniform for every weight of two axes or more, as the authors do."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Output:
        """Recognises.

        Args:
            frames: Spike counts or log-mel frames `[T, B, C]`, float.
            mask: True (non-zero) on real frames `[T, B]`; None where all are real.

        Returns:
            Logits `[T, B, K]` (zero on padded frames with `mask_padding`), and the features `embed`, `block1`, ...:
            residuals `[T, B, D]`.

        Raises:
            ConfigError: If the input has another number of channels, or the network is in half precision throughout.
        """
        if self.frequencies.dtype in (torch.bfloat16, torch.float16):
            raise ConfigError(
                f"SpikeSCR's thresholds and rotary frequencies do not fit {self.frequencies.dtype}; set "
                "trainer.precision to bf16-mixed, 16-mixed or 32-true"
            )
        if frames.shape[-1] != self.in_channels:
            raise ConfigError(
                f"SpikeSCR.in_channels is {self.in_channels}, but the data has {frames.shape[-1]} channels; "
                "make them equal"
            )
        keys = None if mask is None else mask.ne(0).unsqueeze(-1).to(frames.dtype)  # [T, B, 1]
        real = keys if self.mask_padding else None
        frames = frames.contiguous()  # time-first arrives as a transposed view
        by = rotation(len(frames), self.frequencies)
        h = self.embed(frames if real is None else frames * real)
        features = {"embed": h}
        for depth, block in enumerate(self.blocks):
            h = block(h, by, keys, real)
            features[f"block{depth + 1}"] = h
        logits = self.head(self.dropout(h))
        return Output(logits if real is None else logits * real, features)

    def readout(self, logits: Tensor) -> Tensor:
        """Sum, or mean, over time of the softmax over classes: `[T, B, K]` -> `[B, K]`, at least float32.

        With `mask_padding` the mean is over frames that say something: a frame whose logits are all zero is padding, or
        silence through and through, and counts as neither frame nor vote. A sample's mean thus never depends on how far
        its batch is padded.
        """
        votes = (logits if logits.dtype == torch.float64 else logits.float()).softmax(-1)
        if self.mode == "sum":
            return votes.sum(0)
        if not self.mask_padding:
            return votes.mean(0)
        said = (logits != 0).any(-1, keepdim=True)
        return (votes * said).sum(0) / said.sum(0).clamp(min=1)

    def step(self, *frame: Any) -> None:
        """Refused: there is no such thing as one frame at a time here.

        Args:
            *frame: Anything.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "SpikeSCR cannot run step by step: its attention and its centred convolutions look at future frames; "
            "call it on whole utterances, or take a causal network such as SpikingKeyword"
        )


class _Block(nn.Module):
    """Attention, feed-forward, gated convolution, feed-forward; each adds its spikes to the residual."""

    def __init__(
        self,
        width: int,
        heads: int,
        ratio: int,
        kernel: int,
        neuron: NeuronKind,
        tau: float,
        dropout: float,
        order: AttentionOrder,
        official_layout: bool,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads, neuron, tau, dropout, order, official_layout)
        self.feedforward1, self.feedforward2 = (
            nn.Sequential(
                Unit(nn.Linear(width, ratio * width, bias=False), ratio * width, make_neuron(neuron, tau), dropout),
                Unit(nn.Linear(ratio * width, width, bias=False), width, make_neuron(neuron, tau), dropout),
            )
            for _ in range(2)
        )
        self.gated_conv = GatedConv(width, kernel, neuron, tau, dropout)

    def forward(self, h: Tensor, by: Tensor, keys: Tensor | None, frames: Tensor | None) -> Tensor:
        h = h + self.attention(h, by, keys)
        h = h + self.feedforward1(h)
        h = h + self.gated_conv(h, frames)
        return h + self.feedforward2(h)


def _check(width: int, heads: int, depth: int, mlp_ratio: int, kernel_size: int, tau: float, dropout: float) -> None:
    """Refuses sizes that cannot be built, each with one line."""
    if heads < 1 or width % (2 * heads):
        raise ConfigError(f"SpikeSCR.width is {width}; make it a multiple of 2 * heads = {2 * heads}")
    for key, value in (("depth", depth), ("mlp_ratio", mlp_ratio), ("kernel_size", kernel_size)):
        if value < 1:
            raise ConfigError(f"SpikeSCR.{key} is {value}; set it to at least 1")
    if kernel_size % 2 == 0:
        raise ConfigError(f"SpikeSCR.kernel_size is {kernel_size}; make it odd, so that the convolution is centred")
    if tau <= 1:
        raise ConfigError(f"SpikeSCR.tau is {tau}; set it above 1")
    if not 0 <= dropout < 1:
        raise ConfigError(f"SpikeSCR.dropout is {dropout}; set it to at least 0 and below 1")
