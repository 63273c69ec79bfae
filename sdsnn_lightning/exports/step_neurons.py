"""Neurons that take one time step in plain torch operations, and the memory that they share."""

import torch
from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.neurons import PLIF, Leaky
from sdsnn_lightning.neurons.quantised import IntegrateAndFire

State = tuple[Tensor, ...]


class Memory:
    """What the neurons of one step read and leave. Not a module, as tracing must not see it as one.

    Attributes:
        before: State of every neuron before the step, or None at the start.
        after: State of every neuron after it.
        started: What every neuron that has run would start a sequence with.
        names: Dotted name of every neuron that has a place.
    """

    def __init__(self) -> None:
        self.before: State | None = None
        self.after: list[Tensor | None] = []
        self.started: list[Tensor | None] = []
        self.names: list[str] = []

    def place(self, name: str) -> int:
        """Reserves the next place; returns its number."""
        self.names.append(name)
        return len(self.names) - 1

    def begin(self, before: State | None) -> None:
        """Lays the state of a step out."""
        self.before = before
        self.after, self.started = [None] * len(self.names), [None] * len(self.names)

    def read(self, place: int, start: Tensor) -> Tensor:
        """State of one neuron, `start` at the beginning of a sequence.

        Raises:
            ConfigError: If the neuron has run in this step already.
        """
        if self.started[place] is not None:
            raise ConfigError(
                f"{self.names[place]} runs twice in one step, so its state is not its own; give every layer a neuron"
            )
        self.started[place] = start
        return start if self.before is None else self.before[place]


class StepNeuron(nn.Module):
    """One step of a `Leaky`, `PLIF` or `SpatialLeaky` in plain operations, bit by bit that of `neurons.reference`.

    Attributes:
        current_scale: What the current is multiplied by; 1 for all but `PLIF`.
        start: Membrane before the first step.
    """

    beta: Tensor
    threshold: Tensor
    graded: Tensor
    current_scale: Tensor

    def __init__(self, neuron: Leaky, memory: Memory, name: str, start: float = 0.0) -> None:
        """Copies the constants of a neuron.

        Args:
            neuron: The trained one.
            memory: Holds the state.
            name: Dotted name, for messages.
            start: Membrane before the first step.

        Raises:
            ConfigError: If it has inhibition or a quantised membrane.
        """
        super().__init__()
        for option in ("inhibition", "state_quant"):
            if getattr(neuron, option):
                raise ConfigError(f"{name}: a neuron with {option} cannot be exported; train without it")
        self.register_buffer("beta", neuron.beta.detach().clamp(0, 1).clone())
        self.register_buffer("threshold", neuron.threshold.detach().clone())
        self.register_buffer("graded", torch.as_tensor(neuron.graded_spikes_factor).detach().clone())
        decays = isinstance(neuron, PLIF) and neuron.decay_input
        scale = torch.sigmoid(neuron.w.detach()) if isinstance(neuron, PLIF) and decays else torch.ones(())
        self.register_buffer("current_scale", scale)
        self.reset, self.delay, self.output = neuron.reset_mechanism, neuron.reset_delay, bool(neuron.output)
        self.memory, self.place, self.start, self.scaled = memory, memory.place(name), start, decays
        self.ungraded = bool((self.graded == 1).all())

    def forward(self, current: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Maps the current of one step `[1, B, ...]` to spikes of the same shape, with `output` also the membrane."""
        x = current[0] * self.current_scale if self.scaled else current[0]
        before = self.memory.read(self.place, torch.full_like(x, self.start))
        gate = (before - self.threshold > 0).to(x.dtype)
        membrane = self.beta * ((1 - gate) * before if self.reset == "zero" else before) + x
        if self.reset == "subtract":
            membrane = membrane - gate * self.threshold
        spikes = (membrane - self.threshold > 0).to(x.dtype)
        if not self.delay and self.reset != "none":
            away = self.threshold if self.reset == "subtract" else membrane
            membrane = membrane - (spikes - gate) * away
        self.memory.after[self.place] = membrane
        out = (spikes if self.ungraded else spikes * self.graded)[None]
        return (out, membrane[None]) if self.output else out


class StepIntegrate(nn.Module):
    """One step of a converted network's `IntegrateAndFire`, whose membrane begins at half a threshold."""

    ceiling: Tensor

    def __init__(self, neuron: IntegrateAndFire, memory: Memory, name: str) -> None:
        """Copies the constants; the arguments are those of `StepNeuron`."""
        super().__init__()
        self.register_buffer("ceiling", neuron.ceiling.detach().clone())
        self.neuron = StepNeuron(neuron.neuron, memory, name, start=0.5)

    def forward(self, current: Tensor) -> Tensor:
        """Maps the current of one step `[1, B, ...]` to `{0, ceiling}`."""
        return self.neuron(current / self.ceiling) * self.ceiling
