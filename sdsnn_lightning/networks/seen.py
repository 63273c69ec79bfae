"""SEEN (Zhang et al., SIGGRAPH 2023): emotion from one eye, intensity frames and events together."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdsnn_lightning.neurons import Leaky, Rectangular
from sdsnn_lightning.types import Output

OFFICIAL_NAMES = {
    "conv1_f2": "stack.branches.0",
    "conv1_f3": "stack.branches.1",
    "conv1_f4": "stack.branches.2",
    "mlp_f1": "stack.gates.0",
    "mlp_f2": "stack.gates.1",
    "mlp_f3": "stack.gates.2",
    "conv1_cat": "stack.conv1",
    "conv2_f2": "stack.conv2",
    "conv3_f2": "stack.conv3",
}
"""Modules of the authors' code by our names; the others are called the same in both."""


def seen_neuron(output: bool = False) -> Leaky:
    """SEEN's neuron: `V_t = 0.2 V_{t-1} (1 - P_{t-1}) + X_t`, `P_t = [V_t > 0.3]` (as the code has it; the paper: >=).

    The surrogate gradient is 1 where `|V - 0.3| < 0.5`, and the gradient also flows through the reset, as in the code.

    Args:
        output: Whether to return the membrane potential (before the reset) too.
    """
    return Leaky(
        beta=0.2,
        threshold=0.3,
        spike_grad=Rectangular(1.0),
        reset_mechanism="zero",
        reset_delay=True,
        detach_reset=False,
        output=output,
    )


class ConvStack(nn.Module):
    """SEEN's convolutions: three branches of 3x3, 5x5 and 7x7 gated by attention, mixed, then two strided layers.

    Attributes:
        flat: Number of elements of the last map, 18432 (512 channels of 6x6) at size 90 and width 1.
    """

    def __init__(self, size: int, channels: int = 3, width: float = 1.0) -> None:
        """Creates the stack.

        Args:
            size: Side of the square input in pixels.
            channels: Channels of the input.
            width: Multiplies the 64, 256 and 512 channels of the paper.
        """
        super().__init__()
        c1, c2, c3 = (max(8, int(c * width)) for c in (64, 256, 512))
        self.branches = nn.ModuleList(nn.Conv2d(channels, c1, k, stride=2, padding=k // 2) for k in (3, 5, 7))
        self.gates = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(c1, c1 // 8, 1),
                nn.BatchNorm2d(c1 // 8),
                nn.ReLU(),
                nn.Conv2d(c1 // 8, 1, 1),
            )
            for _ in range(3)
        )
        self.conv1 = nn.Conv2d(3 * c1, c1, 1)
        self.conv2 = nn.Conv2d(c1, c2, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(c2, c3, 3, stride=4, padding=1)
        side = (((size - 1) // 2) // 2) // 4 + 1  # 90 -> 45 -> 23 -> 6
        self.flat = c3 * side * side

    def mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """First layer with its own attention.

        Args:
            x: Images `[N, C, S, S]`.

        Returns:
            The mixed map `[N, c1, S/2, S/2]` and the attention `[N, 3, 1, 1]` that weighted its branches.
        """
        maps = [branch(x) for branch in self.branches]
        attention = torch.cat([gate(m) for gate, m in zip(self.gates, maps, strict=True)], 1).softmax(1)
        return self.conv1(torch.cat([w * m for w, m in zip(attention.split(1, 1), maps, strict=True)], 1)), attention


class SEEN(nn.Module):
    """The spiking eye emotion network of "In the Blink of an Eye: Event-based Emotion Recognition", exactly as coded.

    The frame path sees the first and the last frame and yields one binary vector J_s (eqs 2-7). The event path borrows
    the frame path's convolution weights and attention at every step, without biases and without gradient, and J_s is
    added to its last spikes at every step (eqs 8-13). Hence only the two linear layers learn from events; the
    convolutions learn through J_s alone. 6,078,655 parameters at 7 classes and 3 channels; 0.907 G dense
    multiply-accumulates at T=4 and 90x90, which the paper calls FLOPS.

    Features: `spikes1`, `spikes2`, `spikes3` (event path, `[T, B, C, H, W]`), `frame_spikes` (J_s at every step) and
    `hidden` (spikes of the first linear layer, `[T, B, 256]`).
    """

    inputs: ClassVar[tuple[str, ...]] = ("frames", "events")

    def __init__(self, num_classes: int, size: int = 90, channels: int = 3) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            size: Side of the square frames in pixels.
            channels: Channels of a frame and of an event frame; 3 in the paper, where they are grey copies.
        """
        super().__init__()
        self.conv0 = nn.Conv2d(2 * channels, channels, 1)
        self.stack = ConvStack(size, channels)
        self.fc1 = nn.Linear(self.stack.flat, 256)
        self.fc2 = nn.Linear(256, num_classes)
        self.lif_frame, self.lif1, self.lif2, self.lif3, self.lif4 = (seen_neuron() for _ in range(5))
        self.lif5 = seen_neuron(output=True)

    def forward(self, frames: Tensor, events: Tensor) -> Output:
        """Classifies a clip.

        Args:
            frames: Normalised intensity frames `[T, B, C, S, S]`; only the first and the last are used.
            events: Normalised event frames `[T, B, C, S, S]`.

        Returns:
            Membrane potentials of the output layer as logits `[T, B, K]`, and the features.
        """
        mixed, attention = self.stack.mix(self.conv0(torch.cat([frames[0], frames[-1]], 1)))
        frame_map = self.stack.conv3(self.stack.conv2(mixed)).flatten(1)  # [B, flat], linear up to here
        frame_spikes = self.lif_frame(frame_map[None])  # [1, B, flat]
        spikes1, spikes2, spikes3 = self._event_spikes(events, attention)
        hidden = self.lif4(self.fc1(spikes3.flatten(2) + frame_spikes))  # values in {0, 1, 2} enter fc1
        _, membrane = self.lif5(self.fc2(hidden))
        features = {
            "spikes1": spikes1,
            "spikes2": spikes2,
            "spikes3": spikes3,
            "frame_spikes": frame_spikes.expand(len(events), -1, -1),
            "hidden": hidden,
        }
        return Output(membrane, features)

    @torch.no_grad()
    def _event_spikes(self, events: Tensor, attention: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Event path up to the last convolution: weights and attention copied from the frame path, no biases."""
        stack, (steps, batch) = self.stack, events.shape[:2]
        folded = events.flatten(0, 1)  # [T*B, C, S, S]
        gates = attention.repeat(steps, 1, 1, 1).split(1, 1)  # the same for all steps of a sample
        weights = [branch.get_parameter("weight") for branch in stack.branches]
        maps = [g * F.conv2d(folded, w, None, 2, w.shape[-1] // 2) for g, w in zip(gates, weights, strict=True)]
        current = F.conv2d(torch.cat(maps, 1), stack.conv1.weight)
        spikes1 = self.lif1(current.unflatten(0, (steps, batch)))
        current = F.conv2d(spikes1.flatten(0, 1), stack.conv2.weight, None, 2, 1)
        spikes2 = self.lif2(current.unflatten(0, (steps, batch)))
        current = F.conv2d(spikes2.flatten(0, 1), stack.conv3.weight, None, 4, 1)
        spikes3 = self.lif3(current.unflatten(0, (steps, batch)))
        return spikes1, spikes2, spikes3

    def readout(self, logits: Tensor) -> Tensor:
        """Mean of the output membrane potential over time (eq 14): `[T, B, K]` -> `[B, K]`."""
        return logits.mean(0)

    def load_official(self, state_dict: dict[str, Tensor]) -> None:
        """Loads weights saved by the authors' code.

        Args:
            state_dict: Keys of their `SNNCNN3`, with or without the `module.` of data parallel training.
        """
        renamed = {}
        for key, value in state_dict.items():
            module, rest = key.removeprefix("module.").split(".", 1)
            renamed[f"{OFFICIAL_NAMES.get(module, module)}.{rest}"] = value
        # Neuron constants are buffers of snntorch's Leaky, which the authors' code does not save.
        constants = {key: value for key, value in self.state_dict().items() if key.startswith("lif")}
        self.load_state_dict({**constants, **renamed})
