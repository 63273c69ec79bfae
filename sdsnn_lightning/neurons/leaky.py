"""`Leaky`: snnTorch's leaky integrate-and-fire neuron over a whole sequence at once."""

from typing import Any, Literal

import snntorch
import torch
from torch import Tensor

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.neurons.fused import leaky_sequence
from sdsnn_lightning.neurons.surrogate import ATan, SpikeGrad, recognise


class Leaky(snntorch.Leaky):
    """A `snntorch.Leaky` that takes the current of all time steps and keeps no state between calls.

    Spikes and gradients equal those of stepping `snntorch.Leaky` T times from zero state, but in one fused operator
    with a one-sweep backward. State dicts are exchangeable with `snntorch.Leaky`. The neuron::

        r[t] = H(u[t-1] - threshold)                          # reset gate
        u[t] = beta * u[t-1] + current[t] - r[t] * threshold  # reset_mechanism="subtract"
        s[t] = H(u[t] - threshold)                            # spikes; dH is the surrogate

    Inhibition, quantised state, graded spikes, a disabled surrogate and unknown surrogates are stepped one by one.
    Membranes are integrated in float32 for half-precision currents and in the current's dtype otherwise.

    Attributes:
        detach_reset: Whether no gradient flows through the reset gate `r`.
    """

    mem: Tensor  # snnTorch's state buffer, always empty here

    def __init__(
        self,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        spike_grad: SpikeGrad | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: Literal["subtract", "zero", "none"] = "subtract",
        state_quant: Any = False,
        output: bool = False,
        graded_spikes_factor: float | Tensor = 1.0,
        learn_graded_spikes_factor: bool = False,
        reset_delay: bool = True,
        detach_reset: bool = True,
    ) -> None:
        """Creates the neuron; the arguments of `snntorch.Leaky` and one more.

        Args:
            beta: Decay of the membrane per step, clamped to [0, 1]; a number, or a tensor that broadcasts to `[B, ...]`
                (`[C, 1, 1]` for one per channel of an image).
            threshold: Membrane above which the neuron spikes; a number, or a tensor as for beta.
            spike_grad: Surrogate: `ATan`, `FastSigmoid`, `Rectangular` or any of snnTorch's. `ATan()` by default.
            surrogate_disable: No surrogate gradient at all.
            init_hidden: Must stay False: no state is kept here.
            inhibition: Only the neuron with the highest membrane may spike.
            learn_beta: Whether beta is trained.
            learn_threshold: Whether the threshold is trained.
            reset_mechanism: `subtract` the threshold, reset to `zero`, or `none`.
            state_quant: Quantiser of the membrane, of `snntorch.functional.quant`.
            output: Whether `forward` and `step` also return the membrane.
            graded_spikes_factor: Value of a spike.
            learn_graded_spikes_factor: Whether that value is trained.
            reset_delay: Whether the reset comes one step after the spike. If not, the membrane returned is after it.
            detach_reset: Whether no gradient flows through the reset gate, as in snnTorch. SEEN (arXiv 2310.04043) lets
                it flow: False.

        Raises:
            ConfigError: If `init_hidden` is set.
        """
        if init_hidden:
            raise ConfigError(
                "Leaky.init_hidden: this neuron keeps no state; leave it out and call step(x, state) instead"
            )
        super().__init__(
            beta,
            threshold,
            ATan() if spike_grad is None else spike_grad,
            surrogate_disable,
            init_hidden,
            inhibition,
            learn_beta,
            learn_threshold,
            reset_mechanism,
            state_quant,
            output,
            graded_spikes_factor,
            learn_graded_spikes_factor,
            reset_delay,
        )
        # snnTorch keeps every neuron ever made in a class-level list, for a reset that is not needed here.
        instances = snntorch.SpikingNeuron.instances
        instances[:] = [neuron for neuron in instances if neuron is not self]
        self.detach_reset = detach_reset
        self._surrogate = recognise(self.spike_grad)
        self._plan()

    def _plan(self) -> None:
        """Chooses fused or stepped; not in `forward`, where reading a tensor would wait for the GPU."""
        graded = self.graded_spikes_factor
        plain = not isinstance(graded, torch.nn.Parameter) and bool((graded == 1).all())
        self._fused = plain and not (self.inhibition or self.state_quant) and self._surrogate is not None
        # Whether the fused operator, which starts from rest, can be given a carried membrane with the first current.
        kept = self.reset_delay or self.reset_mechanism == "none"
        steady = not isinstance(self.threshold, torch.nn.Parameter) and bool((self.threshold > 0).all())
        self._resumes = self._fused and kept and steady and self.detach_reset

    def forward(self, current: Tensor, gain: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Runs the neuron over a sequence from zero state.

        Args:
            current: Input current `[T, B, ...]`, floating point.
            gain: Multiplies the spikes of every neuron, all steps alike, without gradient to itself: a dropout mask,
                say, broadcastable to `[B, ...]`. Equal to multiplying afterwards, which reads and writes all again.

        Returns:
            Spikes `[T, B, ...]` in the dtype of the current; with `output`, also the membrane `[T, B, ...]` that
            snnTorch would return at each step (before the reset with `reset_delay`, after it without).

        Raises:
            ConfigError: If beta, threshold or gain do not broadcast to `[B, ...]`.
        """
        if self._fused:
            x = current if current.is_floating_point() else current.float()
            spikes, mem = self._sequence(x, self.output, gain)
        else:
            spikes, mem = self._stepped(current if current.dtype == torch.float64 else current.float())
            spikes = spikes if gain is None else spikes * gain.detach()
        if self.output:
            return spikes.to(current.dtype), mem.to(current.dtype)
        return spikes.to(current.dtype)

    def step(self, current: Tensor, state: Tensor | None = None) -> tuple[Tensor | tuple[Tensor, Tensor], Tensor]:
        """Runs one time step online, identical to the same frame of `forward`.

        Args:
            current: Input current `[B, ...]`.
            state: What the previous step returned, or None at the start.

        Returns:
            Spikes `[B, ...]` (with `output`, spikes and membrane), and the state for the next step: the membrane
            `[B, ...]`, float32 for half-precision currents.
        """
        x = current if current.dtype == torch.float64 else current.float()
        spikes, mem = self._one_step(x, torch.zeros_like(x) if state is None else state)
        spikes = spikes.to(current.dtype)
        return ((spikes, mem.to(current.dtype)) if self.output else spikes), mem

    def proceed(self, current: Tensor, state: Tensor | None = None) -> tuple[Tensor | tuple[Tensor, Tensor], Tensor]:
        """Runs a stretch of a sequence, from where the stretch before it ended.

        Stretches in turn give the numbers of `forward` over the whole sequence, and gradients flow from one into the
        one before through the state.

        Args:
            current: Input current `[L, B, ...]`, at least one step.
            state: What the stretch before returned, or None at the start.

        Returns:
            Spikes `[L, B, ...]` (with `output`, spikes and membrane), and the state for the next stretch: the membrane
            `[B, ...]`, float32 for half-precision currents.
        """
        x = current if current.dtype == torch.float64 else current.float()
        if self._resumes and len(x) > 1:
            spikes, mem = self._sequence(x if state is None else torch.cat([self._first(x[:1], state), x[1:]]), True)
        else:
            spikes, mem = self._stepped(x, state)
        out = spikes.to(current.dtype)
        # A copy: a view of the last membrane would keep those of all steps.
        return ((out, mem.to(current.dtype)) if self.output else out), mem[-1].clone()

    def _first(self, x: Tensor, mem: Tensor) -> Tensor:
        """The current that does to a neuron at rest what `x` does to one with this membrane."""
        reset = (mem.detach() > self.threshold).to(mem.dtype)  # the gate has no gradient where this is called
        left = (1 - reset) * mem if self.reset_mechanism == "zero" else mem
        x = self.beta.clamp(0, 1) * left + x
        return x - reset * self.threshold if self.reset_mechanism == "subtract" else x

    def _sequence(self, x: Tensor, membrane: bool, gain: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The fused operator; see `leaky_sequence`."""
        assert self._surrogate is not None
        options = self.reset_mechanism, self.reset_delay, self.detach_reset, membrane, gain
        return leaky_sequence(x, self.beta.clamp(0, 1), self.threshold, self._surrogate, *options)

    def mem_reset(self, mem: Tensor) -> Tensor:
        """The reset gate of snnTorch's step, `[B, ...]`; detached unless `detach_reset` is off."""
        return super().mem_reset(mem) if self.detach_reset else self.spike_grad(mem - self.threshold)

    def _one_step(self, x: Tensor, mem: Tensor) -> tuple[Tensor, Tensor]:
        """One step by snnTorch's own code, which leaves its state on the module: cleared again."""
        empty = self.mem
        try:
            return super().forward(x, mem)
        finally:
            self.mem, self.reset = empty, None

    def _stepped(self, x: Tensor, mem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The whole sequence step by step, for the options that are not fused."""
        if len(x) == 0:
            return x.clone(), x.clone()
        mem = torch.zeros_like(x[0]) if mem is None else mem
        spikes, mems = [], []
        for x_t in x:
            spikes_t, mem = self._one_step(x_t, mem)
            spikes.append(spikes_t)
            mems.append(mem)
        return torch.stack(spikes), torch.stack(mems)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Refuses a state of another reset mechanism, which snnTorch would load and ignore."""
        key = f"{prefix}reset_mechanism_val"
        if key in state_dict and int(state_dict[key]) != self.reset_dict[self.reset_mechanism]:
            error_msgs = args[-1]
            error_msgs.append(
                f"{key} is not that of reset_mechanism={self.reset_mechanism!r}; build the neuron to match."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._plan()
