"""One network with other neurons: ReLU, snnTorch's stepped loop, spikingjelly's multi-step nodes."""

from collections.abc import Callable
from typing import Any

import snntorch
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdsnn_lightning.neurons import Leaky
from sdsnn_lightning.neurons.surrogate import ATan


class Stepped(nn.Module):
    """A `snntorch.Leaky` stepped over a sequence `[T, B, ...]`, which it takes apart the cheapest way."""

    def __init__(self, ours: Leaky) -> None:
        super().__init__()
        self.neuron = snntorch.Leaky(
            ours.beta, ours.threshold, spike_grad=ours.spike_grad, reset_mechanism=ours.reset_mechanism
        )

    def forward(self, current: Tensor) -> Tensor:
        mem, spikes = torch.zeros_like(current[0]), []
        for x in current.unbind():
            s, mem = self.neuron(x, mem)
            spikes.append(s)
        return torch.stack(spikes)


class Rectifier(nn.Module):
    """ReLU in the place of a neuron."""

    def __init__(self, ours: Leaky) -> None:
        super().__init__()

    def forward(self, current: Tensor) -> Tensor:
        return functional.relu(current)


def node(ours: Leaky, rival: Any) -> nn.Module:
    """spikingjelly's neuron of the same equation and surrogate, for the two resets it has."""
    grad = ours.spike_grad
    assert isinstance(grad, ATan)
    assert ours.reset_mechanism in ("zero", "subtract")
    assert ours.beta.numel() == 1
    return rival.neuron.LIFNode(
        tau=1 / (1 - float(ours.beta)),
        decay_input=False,
        v_threshold=float(ours.threshold),
        v_reset=0.0 if ours.reset_mechanism == "zero" else None,
        surrogate_function=rival.surrogate.ATan(grad.alpha),
        detach_reset=True,
        step_mode="m",
    )


def swap(network: nn.Module, make: Callable[[Leaky], nn.Module]) -> nn.Module:
    """Puts another module in the place of every neuron of a network, in place."""
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, Leaky)]
    assert found
    for name, module in found:
        parent, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(parent), leaf, make(module))
    return network


def training_step(
    network: nn.Module, inputs: tuple[Tensor, ...], target: Tensor, before: Callable[[], object] | None = None
) -> Callable[[], Tensor]:
    """A whole training step of a network `[T, B, ...] -> Output`, its optimizer's included; gives the loss."""
    optimizer = torch.optim.SGD(network.parameters(), 1e-4)

    def step() -> Tensor:
        if before is not None:
            before()
        optimizer.zero_grad()
        loss = functional.cross_entropy(network.readout(network(*inputs).logits), target)  # type: ignore[operator]
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
