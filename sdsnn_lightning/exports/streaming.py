"""A student one frame at a time: state in, state out, in plain torch operations.

The networks here are time-first and mix time steps in their neurons alone, so one frame of a network is its forward
pass at T = 1 with every neuron handed its own state. What mixes time elsewhere registers its own with
`stream`. `check_stream` compares the result with the whole-sequence network, and refuses what is not the same function.
"""

import copy
from functools import singledispatch
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.exports.step_neurons import Memory, State, StepIntegrate, StepNeuron
from sdsnn_lightning.networks.keyword import _READOUT_BETA, SpikingKeyword
from sdsnn_lightning.networks.spikescr import SpikeSCR
from sdsnn_lightning.neurons import Leaky
from sdsnn_lightning.neurons.quantised import IntegrateAndFire
from sdsnn_lightning.segments import mixes_steps

DEVIATION = 0.01
"""Largest share of differing spikes, and of the logits' spread, that rounding may explain."""


class Step(nn.Module):
    """Base of all streaming steps: `forward(*frames, state) -> (logits, state)`, everything `[B, ...]`."""

    names: list[str]

    def start(self, *frames: Tensor) -> State:
        """State before the first frame, for a batch like that of `frames`, each `[B, ...]`."""
        raise NotImplementedError


class NetworkStep(Step):
    """One frame of any network that mixes time steps in its neurons alone."""

    def __init__(self, network: nn.Module) -> None:
        """Copies the network, in evaluation mode, and swaps its neurons.

        Args:
            network: Follows the `Network` contract; stays as it is.

        Raises:
            ConfigError: If a neuron cannot run in plain operations.
        """
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
        self.memory = Memory()
        inner: str | None = None
        for name, module in list(self.network.named_modules()):
            if inner is not None and name.startswith(inner):
                continue
            swapped: nn.Module | None = None
            if isinstance(module, IntegrateAndFire):
                swapped, inner = StepIntegrate(module, self.memory, name), f"{name}."
            elif isinstance(module, Leaky):
                swapped = StepNeuron(module, self.memory, name)
            if swapped is not None:
                parent, _, child = name.rpartition(".")
                setattr(self.network.get_submodule(parent), child, swapped)
        self.names = self.memory.names

    def forward(self, *arguments: Any) -> tuple[Tensor, State]:
        """Runs one frame; the last argument is the state."""
        *frames, state = arguments
        self.memory.begin(state)
        logits = self.network(*(frame[None] for frame in frames)).logits
        idle = [name for name, entry in zip(self.names, self.memory.after, strict=True) if entry is None]
        if idle:
            raise ConfigError(f"{idle[0]} is a neuron that the forward pass never uses; take it out of the network")
        return logits[0], tuple(self.memory.after)  # type: ignore[arg-type]

    @torch.no_grad()
    def start(self, *frames: Tensor) -> State:
        """The neurons' first membranes, found by one pass."""
        self(*frames, None)
        return tuple(self.memory.started)  # type: ignore[arg-type]


class KeywordStep(Step):
    """One frame of `SpikingKeyword`: the state also holds what its causal convolutions still need of the past.

    State, in order: for every layer the last `(kernel - 1) * dilation` inputs `[B, C, past]` and the membranes
    `[B, hidden]`; then the read-out membrane `[B, K]`.
    """

    def __init__(self, network: SpikingKeyword) -> None:
        """Copies the network, in evaluation mode."""
        super().__init__()
        copied = copy.deepcopy(network).cpu().eval().requires_grad_(False)
        self.convs, self.norms, self.head = copied.convs, copied.norms, copied.head
        self.memory = Memory()
        neurons = [StepNeuron(n, self.memory, f"neurons.{i}") for i, n in enumerate(copied.neurons)]  # type: ignore[arg-type]
        self.neurons = nn.ModuleList(neurons)
        self.names = [f"{part}.{i}" for i in range(len(neurons)) for part in ("convs", "neurons")] + ["readout"]

    def forward(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        """Maps one frame `[B, mels]` to logits `[B, K]`."""
        self.memory.begin(state[1:-1:2])
        x, pasts = audio, []
        for depth, (conv, norm, neuron) in enumerate(zip(self.convs, self.norms, self.neurons, strict=True)):
            window = torch.cat([state[2 * depth], x[:, :, None]], 2)  # [B, C, past + 1]
            pasts.append(window[:, :, 1:])
            x = neuron(norm(conv(window))[None, :, :, 0])[0]
        membrane = _READOUT_BETA * state[-1] + self.head(x)
        after = [entry for pair in zip(pasts, self.memory.after, strict=True) for entry in pair]
        return membrane, (*after, membrane)

    def start(self, *frames: Tensor) -> State:
        """Silence before the first frame."""
        (audio,) = frames
        state = []
        for module in self.convs:
            conv: Any = module
            past = (conv.kernel_size[0] - 1) * conv.dilation[0]
            state += [
                audio.new_zeros(len(audio), conv.in_channels, past),
                audio.new_zeros(len(audio), conv.out_channels),
            ]
        return (*state, audio.new_zeros(len(audio), self.head.out_features))


@singledispatch
def stream(network: nn.Module) -> Step:
    """Makes the streaming step of a network. A network of your own registers another with `stream.register(Mine)`.

    Args:
        network: Follows the `Network` contract.

    Returns:
        Its step, on the CPU, in evaluation mode; not yet checked, see `check_stream`.

    Raises:
        ConfigError: If the network cannot run frame by frame.
    """
    return NetworkStep(network)


@stream.register
def _(network: SpikingKeyword) -> Step:
    return KeywordStep(network)


@stream.register
def _(network: SpikeSCR) -> Step:
    raise ConfigError(
        "SpikeSCR cannot be exported as a streaming step: its attention and its centred convolutions look at future "
        "frames; export its weights (--to weights), or train a causal network such as SpikingKeyword"
    )


class Agreement(NamedTuple):
    """What a comparison frame by frame found.

    Attributes:
        steps: Frames compared.
        spikes: Spikes of the whole-sequence network, those of its tapped features.
        different: Largest deviation of a logit.
    """

    steps: int
    spikes: int
    different: float


@torch.no_grad()
def check_stream(network: nn.Module, step: Any, inputs: tuple[Tensor, ...], state: State) -> Agreement:
    """Compares a step with the network that sees all frames at once.

    Args:
        network: The network, on the CPU.
        step: Its `Step`, or an exported program of it.
        inputs: Every modality `[T, B, ...]`.
        state: State before the first frame.

    Returns:
        What was compared.

    Raises:
        ConfigError: If the mean deviation of the logits exceeds `DEVIATION` of their spread, or something besides its
            neurons mixes the time steps of a network that has no step of its own.
    """
    was = network.training
    whole = network.eval()(*inputs)
    network.train(was)
    if whole.logits.ndim != 3:
        raise ConfigError(
            f"{type(network).__name__} gives one answer for all time steps, so there is no step to export; "
            "export its weights (--to weights)"
        )
    logits = []
    for t in range(len(inputs[0])):
        logits_t, state = step(*(x[t] for x in inputs), state)
        logits.append(logits_t)
    found = torch.stack(logits)
    spread = whole.logits.float().std().item() or 1.0
    deviates = functional.l1_loss(found, whole.logits).item() > DEVIATION * spread
    if deviates or (isinstance(step, NetworkStep) and mixes_steps(network, inputs)):
        raise ConfigError(
            f"{type(network).__name__} gives other logits frame by frame than for the whole sequence: it mixes time "
            "steps outside its neurons; register its own step with sdsnn_lightning.exports.streaming.stream, or "
            "export its weights (--to weights)"
        )
    spikes = sum(int(feature.ne(0).sum()) for feature in whole.features.values())
    return Agreement(len(logits), spikes, (found - whole.logits).abs().max().item())
